// One photo after the other. What is said of one is on the disk before this page goes on to the next.
const KINDS = { roadwork: "Roadwork", no_roadwork: "No roadwork", skip: "Skipped" };
const KEYS = { r: "roadwork", n: "no_roadwork", s: "skip" };
const REASONS = {
  random: "It was of the random tenth.", disagreement: "It was shown as the models disagree.",
  unsure: "It was shown as the model was unsure.", unlike: "It was shown as it is unlike those labelled.",
  error: "It was shown as it is like one on which the model was wrong.",
  import: "It was imported.",
};
const HELD = 14; // photos that are fetched and kept
const LOOK = 5000; // between two looks for new photos
const MOST_ZOOM = 12;
const SWIPE = 70; // pixels

const $ = id => document.getElementById(id);
const stage = $("stage");
const photos = new Map(); // by digest, the images that were fetched
let state = null; // as the server has it
let browsing = null; // a labelled photo that is looked at again; null: the one that waits
let busy = false;
let isLost = false;
let view = { scale: 1, x: 0, y: 0 };

const current = () => browsing ?? state?.photo ?? null;

async function ask(path, body) {
  const how = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...how });
  } catch {
    throw new Error("no contact: is `roadwork-miner label` still running? Nothing is lost.");
  }
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => ({}));
  const fault = new Error(told.message ?? `the answer was ${answer.status}; a new start has a new address`);
  fault.status = answer.status;
  throw fault;
}

// --- photos ---------------------------------------------------------------------------------------------------------

function image(digest) {
  let found = photos.get(digest);
  if (found === undefined) {
    found = new Image();
    found.alt = "";
    found.draggable = false;
    found.decoding = "async";
    found.src = `photo/${digest}`;
    found.addEventListener("error", () => failed(digest));
  }
  photos.delete(digest); // the latest last
  photos.set(digest, found);
  for (const [old, one] of photos) {
    if (photos.size <= HELD) break;
    if (!one.isConnected) photos.delete(old);
  }
  return found;
}

async function failed(digest) {
  photos.get(digest)?.remove();
  photos.delete(digest);
  if (current()?.digest !== digest) return;
  const answer = await fetch(`photo/${digest}`, { method: "HEAD", cache: "no-store" }).catch(() => null);
  if (answer?.status === 404 && browsing === null) {
    tell("The recorder has deleted that photo meanwhile: it keeps the latest alone. Here is another.");
    await look();
  } else {
    $("away").textContent = answer?.ok || answer?.status === 415 ? "This photo can't be shown here. S skips it." : "This photo is not there any more.";
    $("away").hidden = false;
  }
}

function place(digest) {
  const wanted = digest === null ? null : image(digest);
  for (const one of stage.querySelectorAll("img")) if (one !== wanted) { one.remove(); one.classList.remove("here"); }
  if (wanted === null || (wanted.isConnected && wanted.classList.contains("here"))) return;
  $("away").hidden = true;
  stage.prepend(wanted);
  wanted.classList.add("here");
  zoomTo(1, 0, 0);
}

// --- what is shown --------------------------------------------------------------------------------------------------

const percent = value => `${Math.round(value * 100)}\u00a0%`;

function said(photo) {
  const words = photo.prediction === null ? "The model had not answered" : `The model had said ${percent(photo.prediction)}`;
  const others = Object.entries(photo.opinions).map(([name, value]) => `${name} ${percent(value)}`);
  return others.length ? `${words} (${others.join(", ")})` : words;
}

function line(photo) {
  const strip = $("strip"), key = JSON.stringify([photo, browsing === null]);
  if (strip.dataset.key === key) return; // else it would be read out again
  strip.dataset.key = key;
  strip.replaceChildren();
  if (photo === null) return;
  const words = document.createElement("p");
  const kind = document.createElement("b");
  kind.textContent = KINDS[photo.label];
  words.append(kind, ". ");
  if (photo.label === "skip" || photo.prediction === null) {
    words.append(`${said(photo)}. `);
  } else if (photo.is_surprise) {
    const surprise = document.createElement("span");
    surprise.className = "surprise";
    surprise.textContent = "a surprise";
    words.append(`${said(photo)}: `, surprise, ". ");
  } else {
    words.append(`${said(photo)}, as you say. `);
  }
  words.append(REASONS[photo.reason] ?? "");
  if (browsing === null) {
    const small = image(photo.digest); // the very one, which need not be fetched again
    small.classList.remove("here");
    small.style.transform = "";
    strip.append(small);
  }
  strip.append(words);
}

function show() {
  if (state === null) return;
  const photo = current(), tally = state.tally, label = photo?.label ?? null;
  const figures = [
    [tally.labelled, "labelled"], [tally.surprises, tally.surprises === 1 ? "surprise" : "surprises"],
    [tally.waiting, "waiting"], [tally.sampled, "of the random tenth"],
  ];
  if (tally.skipped) figures.splice(2, 0, [tally.skipped, "skipped"]);
  $("tally").replaceChildren(...figures.map(([count, what]) => {
    const one = document.createElement("span"), number = document.createElement("b");
    number.textContent = count;
    one.append(number, ` ${what}`);
    return one;
  }));
  const done = tally.labelled + tally.skipped, all = done + tally.waiting;
  $("bar").firstElementChild.style.width = `${all ? (100 * done) / all : 0}%`;

  stage.classList.toggle("empty", photo === null);
  $("end").hidden = photo !== null;
  if (photo === null) {
    const none = done === 0;
    $("end-title").textContent = none ? "No photo yet" : "All labelled";
    $("end-words").textContent = none
      ? "What validators send is shown here as soon as it is recorded."
      : `${tally.labelled} labelled, ${tally.surprises} of them surprises. ← leads back to them; new photos are shown as they come.`;
    $("away").hidden = true;
  }
  $("end-note").textContent = state.note;
  place(photo?.digest ?? null);
  $("badge").hidden = label === null;
  $("badge").className = label ?? "";
  $("badge").textContent = label === null ? "" : KINDS[label];
  $("question").textContent = photo === null ? "Label" : browsing ? "Labelled before" : "Is there roadwork?";

  const first = $("opinions").getAttribute("aria-pressed") === "true" && photo !== null && browsing === null;
  $("opinion").hidden = !first;
  if (first) $("opinion").textContent = photo.prediction === null ? "The model has not answered." : `The model says ${percent(photo.prediction)} roadwork.`;
  line(browsing ?? state.last);

  for (const kind of Object.keys(KINDS)) {
    $(kind).disabled = photo === null;
    $(kind).classList.toggle("said", label === kind);
    $(kind).setAttribute("aria-pressed", String(label === kind));
  }
  $("undo").disabled = state.undoable === 0;
  $("before").disabled = tally.labelled + tally.skipped === 0;
  $("after").disabled = browsing === null;
  $("zoom").disabled = photo === null;
  for (const digest of state.following) image(digest);
}

function tell(words) {
  $("fault").firstElementChild.textContent = words ?? "";
  $("fault").hidden = !words;
}

// --- what is done ---------------------------------------------------------------------------------------------------

async function during(work) {
  if (busy) return;
  busy = true;
  document.body.classList.add("busy");
  try {
    await work();
  } catch (fault) {
    tell(fault.message);
    if (fault.status === 409 || fault.status === 410) {
      browsing = null;
      state = await ask("state").catch(() => state);
    }
  } finally {
    busy = false;
    document.body.classList.remove("busy");
    show();
  }
}

const decide = kind => during(async () => {
  const photo = current();
  if (photo === null) return;
  const answer = await ask("label", { digest: photo.digest, kind, was: photo.label });
  tell();
  if (browsing !== null) browsing = answer.labelled;
  state = answer;
});

const undo = () => during(async () => {
  if (!state?.undoable) return;
  const answer = await ask("undo", {});
  tell();
  state = answer;
  browsing = answer.labelled; // one that was changed, and is what it was before
});

const step = way => during(async () => {
  if (way === "after" && browsing === null) return;
  const { photo } = await ask(`labelled/${way}?of=${browsing?.digest ?? ""}`);
  if (photo !== null || way === "after") browsing = photo;
  if (browsing === null) state = await ask("state");
  tell();
});

async function look() {
  try {
    const fresh = await ask("state");
    if (busy) return;
    state = fresh;
    if (isLost) tell();
    isLost = false;
    show();
  } catch (fault) {
    isLost = true;
    tell(fault.message);
  }
}

function press(id) {
  const pressed = $(id).getAttribute("aria-pressed") !== "true";
  $(id).setAttribute("aria-pressed", String(pressed));
  show();
}

function help() {
  if ($("keys").open) $("keys").close(); else $("keys").showModal();
}

// --- zoom -----------------------------------------------------------------------------------------------------------

function zoomTo(scale, x, y) {
  const { width, height } = stage.getBoundingClientRect();
  scale = Math.min(MOST_ZOOM, Math.max(1, scale));
  view = {
    scale,
    x: Math.min(0, Math.max(width * (1 - scale), x)),
    y: Math.min(0, Math.max(height * (1 - scale), y)),
  };
  const shown = stage.querySelector("img");
  if (shown) shown.style.transform = scale === 1 ? "" : `translate(${view.x}px, ${view.y}px) scale(${scale})`;
  stage.classList.toggle("zoomed", scale > 1);
  $("zoom").setAttribute("aria-pressed", String(scale > 1));
}

function zoomAt(scale, clientX, clientY) {
  const box = stage.getBoundingClientRect(), left = clientX - box.left, top = clientY - box.top;
  const next = Math.min(MOST_ZOOM, Math.max(1, scale)), ratio = next / view.scale;
  zoomTo(next, left - (left - view.x) * ratio, top - (top - view.y) * ratio);
}

// As large as the photo's own pixels, and thrice as large as it is at least.
function toggleZoom(clientX, clientY) {
  const shown = stage.querySelector("img"), box = stage.getBoundingClientRect();
  if (!shown) return;
  const fit = Math.min(box.width / (shown.naturalWidth || 1), box.height / (shown.naturalHeight || 1));
  const [x, y] = clientX === undefined ? [box.left + box.width / 2, box.top + box.height / 2] : [clientX, clientY];
  zoomAt(view.scale > 1 ? 1 : Math.max(3, 1 / fit), x, y);
}

stage.addEventListener("wheel", event => {
  event.preventDefault();
  if (current()) zoomAt(view.scale * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
}, { passive: false });

// --- fingers and the mouse: a tap zooms, a drag moves or swipes, two fingers pinch --------------------------------------

const fingers = new Map();
let drag = null;

function middle() {
  const all = [...fingers.values()];
  return {
    x: all.reduce((sum, one) => sum + one.x, 0) / all.length, y: all.reduce((sum, one) => sum + one.y, 0) / all.length,
    apart: all.length > 1 ? Math.hypot(all[0].x - all[1].x, all[0].y - all[1].y) : 0,
  };
}

function meant(dx, dy) {
  if (Math.abs(dx) > SWIPE && Math.abs(dx) > 1.5 * Math.abs(dy)) return dx > 0 ? "roadwork" : "no_roadwork";
  return dy < -SWIPE && -dy > 1.5 * Math.abs(dx) ? "skip" : null;
}

function swiping(dx, dy) {
  const kind = meant(dx, dy), shown = stage.querySelector("img");
  $("swipe").hidden = kind === null;
  $("swipe").className = kind ?? "";
  $("swipe").textContent = kind === null ? "" : kind === "skip" ? "Skip" : KINDS[kind];
  if (shown && view.scale === 1) shown.style.transform = dx || dy ? `translate(${dx * 0.4}px, ${Math.min(0, dy) * 0.4}px)` : "";
}

stage.addEventListener("pointerdown", event => {
  if (event.button !== 0 || !current()) return;
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  drag = { ...middle(), from: { ...view }, moved: drag?.moved ?? false, many: fingers.size > 1 || (drag?.many ?? false) };
});

stage.addEventListener("pointermove", event => {
  if (!fingers.has(event.pointerId) || drag === null) return;
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  const now = middle(), dx = now.x - drag.x, dy = now.y - drag.y;
  if (Math.hypot(dx, dy) > 6 || Math.abs(now.apart - drag.apart) > 6) drag.moved = true;
  if (fingers.size > 1) {
    const box = stage.getBoundingClientRect(), ratio = drag.apart ? now.apart / drag.apart : 1;
    const scale = Math.min(MOST_ZOOM, Math.max(1, drag.from.scale * ratio)), by = scale / drag.from.scale;
    zoomTo(scale, now.x - box.left - (drag.x - box.left - drag.from.x) * by, now.y - box.top - (drag.y - box.top - drag.from.y) * by);
  } else if (drag.from.scale > 1) {
    zoomTo(drag.from.scale, drag.from.x + dx, drag.from.y + dy);
  } else if (event.pointerType !== "mouse" && !drag.many) {
    swiping(dx, dy);
  }
});

function lift(event, isOver) {
  if (!fingers.delete(event.pointerId) || drag === null) return;
  if (fingers.size) {
    drag = { ...middle(), from: { ...view }, moved: true, many: true };
    return;
  }
  const { moved, many, from, x, y } = drag, dx = event.clientX - x, dy = event.clientY - y;
  drag = null;
  swiping(0, 0);
  if (!isOver) return;
  if (!moved) {
    toggleZoom(event.clientX, event.clientY);
  } else if (event.pointerType !== "mouse" && !many && from.scale === 1) {
    const kind = meant(dx, dy);
    if (kind) decide(kind);
  }
}

stage.addEventListener("pointerup", event => lift(event, true));
stage.addEventListener("pointercancel", event => lift(event, false));
addEventListener("resize", () => zoomTo(view.scale, view.x, view.y));

// --- keys and buttons -----------------------------------------------------------------------------------------------

const DEEDS = {
  u: undo, z: () => toggleZoom(), o: () => press("opinions"), "?": help, arrowleft: () => step("before"),
  arrowright: () => step("after"),
};

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  // On a keyboard without Latin letters the key counts by its place.
  const key = (/^[^ -~]$/u.test(event.key) ? event.code.replace("Key", "") : event.key).toLowerCase();
  if ($("keys").open) {
    if (key === "?") { event.preventDefault(); help(); }
    return;
  }
  if (KEYS[key]) decide(KEYS[key]); else if (DEEDS[key]) DEEDS[key](); else return;
  event.preventDefault();
});

for (const kind of Object.keys(KINDS)) $(kind).addEventListener("click", () => decide(kind));
$("before").addEventListener("click", () => step("before"));
$("after").addEventListener("click", () => step("after"));
$("undo").addEventListener("click", undo);
$("zoom").addEventListener("click", () => toggleZoom());
$("opinions").addEventListener("click", () => press("opinions"));
$("help").addEventListener("click", help);
$("keys-close").addEventListener("click", help);
$("fault-close").addEventListener("click", () => tell());

setInterval(() => { if (!document.hidden && !busy) look(); }, LOOK);
look();
