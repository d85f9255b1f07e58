// Fetches the page again and takes over its content; without JavaScript the page reloads itself.
const EVERY = 5000;
const main = document.querySelector("main");

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement.id;
    main.replaceChildren(...page.querySelector("main").childNodes);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    document.title = page.title;
    document.body.className = "";
  } catch {
    document.body.className = "lost";
    document.title = "no contact · roadwork-miner";
  }
}

setInterval(() => { if (!document.hidden) refresh(); }, EVERY);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

// The arrow keys lead from one column of a chart to the next.
document.addEventListener("keydown", event => {
  const way = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
  const next = way && document.activeElement.matches("g") && document.activeElement[way];
  if (!next || !next.matches("g")) return;
  next.focus({ preventScroll: true });
  event.preventDefault();
});
