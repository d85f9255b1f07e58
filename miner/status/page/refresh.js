// Fetches the page again and takes over its content; without JavaScript the page reloads itself.
const EVERY = 5000;
const main = document.querySelector("main");

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    main.replaceChildren(...page.querySelector("main").childNodes);
    document.title = page.title;
    document.body.className = "";
  } catch {
    document.body.className = "lost";
    document.title = "no contact · roadwork-miner";
  }
}

setInterval(() => { if (!document.hidden) refresh(); }, EVERY);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
