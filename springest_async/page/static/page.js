// Shows what the journal says, and sends a person's answers. It changes only what has changed, so that the focus, what
// is selected and what a screen reader reads stay where they are.
"use strict";

const PAGE = 50;
const DAY = 86_400_000; // ms
const SVG = "http://www.w3.org/2000/svg";

const STATES = {
  stored: "Stored",
  rejected: "Rejected",
  failed: "Failed",
  in_doubt: "In doubt",
  sending: "Being sent",
  waiting: "Waiting",
};
const ACTIVITIES = {
  running: "Uploading",
  outage: "Cannot send",
  paused: "Paused",
  stopped: "Not running",
  in_doubt: "Waits for you",
  done: "Done",
};

const $ = (id) => document.getElementById(id);
const token = document.querySelector('meta[name="springest-page"]').content;
const cards = new Map(); // by the key of the migration
const stay = new Set(); // those that were not finished when this page first showed them
let order = [];
let finishedShown = PAGE;
let events = null;
let again = null;

// --- words ---

const number = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 100) return `${whole} s`;
  let minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  minutes %= 60;
  if (hours < 48) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const two = (value) => String(value).padStart(2, "0");
const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;
const toSecond = (date) => `${clock(date)}:${two(date.getSeconds())}`;
const day = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
const when = (date) => (day(date) === day(new Date()) ? clock(date) : `${day(date)} ${clock(date)}`);

// --- the document ---

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function set(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

function make(name, text = "", className = "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function say(words) {
  put($("said"), words);
}

function complain(words) {
  const close = make("button", "Close");
  close.type = "button";
  close.addEventListener("click", () => show($("message"), false));
  $("message").replaceChildren(make("span", words), close);
  show($("message"), true);
}

// Buttons that cannot be used keep the focus, so they are not `disabled`.
function enable(button, enabled) {
  set(button, "aria-disabled", String(!enabled));
}

function onPress(button, action) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") action(button);
  });
}

function ask(title, text, yes) {
  const dialog = $("question");
  put($("question-title"), title);
  put($("question-text"), text);
  put($("question-yes"), yes);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

$("question-yes").addEventListener("click", () => $("question").close("yes"));
$("question-no").addEventListener("click", () => $("question").close(""));

// --- the server ---

async function post(path, body = {}) {
  show($("message"), false);
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Springest-Page": token },
      body: JSON.stringify(body),
    });
    if (answer.ok) return await answer.json();
    const words = await answer.text();
    complain(words.charAt(0).toUpperCase() + words.slice(1));
  } catch {
    complain("The status page does not answer. Look here again when it is back, whether anything was changed.");
  }
  return null;
}

function connect() {
  clearTimeout(again);
  events?.close();
  events = new EventSource("events");
  events.addEventListener("message", (event) => update(JSON.parse(event.data)));
  events.addEventListener("error", () => {
    trouble(
      "This page is not up to date: the program that serves it does not answer. Is “springest status --serve” still" +
        " running, at this address? The page tries again by itself.",
    );
    if (events.readyState === EventSource.CLOSED) again = setTimeout(connect, 5000);
  });
}

function trouble(words) {
  put($("trouble"), words);
  show($("trouble"), words !== "");
  for (const card of cards.values()) card.enable();
}

const isAway = () => !$("trouble").hidden;

// A browser opens at most six connections to one program, so a page that nobody sees needs none.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    connect();
    return;
  }
  clearTimeout(again);
  events?.close();
});

// --- all migrations ---

function update(news) {
  order = news.order;
  for (const migration of news.migrations) {
    const card = cards.get(migration.migration);
    if (migration.activity !== "done") stay.add(migration.migration);
    if (card) card.update(migration);
    else cards.set(migration.migration, new Card(migration));
  }
  for (const [key, card] of cards) {
    if (order.includes(key)) continue;
    card.element.remove();
    cards.delete(key);
  }
  const at = news.at && new Date(news.at);
  if (at) put($("fresh"), `as of ${toSecond(at)}`);
  trouble(
    news.trouble
      ? `The journal cannot be read: ${news.trouble}. The page tries again by itself.` +
          (at ? ` What is shown here was so at ${when(at)}.` : "")
      : "",
  );
  show($("empty"), order.length === 0 && !news.trouble);
  show($("orphans"), news.orphans > 0);
  if (news.orphans)
    put(
      $("orphans"),
      `${count(news.orphans, "certificate")} in doubt ${news.orphans === 1 ? "is" : "are"} in no manifest any more:` +
        " “springest status” lists them.",
    );
  for (const card of cards.values()) card.doubts.update();
  arrange();
}

function arrange() {
  const current = [];
  const finished = [];
  // In the order in which they were begun, because a card that moves is hard to read.
  for (const key of [...order].sort((a, b) => b - a)) {
    const card = cards.get(key);
    const isCurrent = stay.has(key) || Date.now() - new Date(card.migration.moved_at) < DAY;
    (isCurrent ? current : finished).push(card);
  }
  const all = $("finished");
  if (current.length === 0 && all.hidden) all.open = true;
  place($("current"), current);
  show(all, finished.length > 0);
  put(all.querySelector("summary"), count(finished.length, "finished upload"));
  place(all.querySelector(".cards"), all.open ? finished.slice(0, finishedShown) : []);
  show(all.querySelector(".more"), finished.length > finishedShown);
}

function place(parent, wanted) {
  wanted.forEach((card, index) => {
    if (parent.children[index] !== card.element) parent.insertBefore(card.element, parent.children[index] ?? null);
  });
  while (parent.children.length > wanted.length) parent.lastElementChild.remove();
}

$("finished").addEventListener("toggle", arrange);
$("finished")
  .querySelector(".more")
  .addEventListener("click", () => {
    finishedShown += PAGE;
    arrange();
  });

// --- one migration ---

class Card {
  constructor(migration) {
    this.element = $("card").content.firstElementChild.cloneNode(true);
    this.migration = migration;
    this.shown = {}; // what was made of a list, as text
    this.doubts = new Doubts(this);
    const title = this.find(".name");
    title.id = `migration-${migration.migration}`;
    set(this.element, "aria-labelledby", title.id);
    for (const state of Object.keys(STATES)) {
      const pair = make("div", "", state);
      pair.append(make("dt", STATES[state]), make("dd"));
      this.find(".outcomes").append(pair);
    }
    onPress(this.find(".pause"), (button) => this.pause(button));
    this.find(".numbers").addEventListener("toggle", () => this.table());
    this.update(migration);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  enable() {
    for (const button of this.element.querySelectorAll("button")) enable(button, !isAway() && !this.busy);
  }

  update(migration) {
    const before = this.migration;
    this.migration = migration;
    const { counts, activity, rows, done } = migration;
    put(this.find(".name"), migration.name);
    const badge = this.find(".activity");
    put(badge, ACTIVITIES[activity]);
    set(badge, "class", `activity ${activity}`);
    put(this.find(".where"), `${migration.host.replace("https://", "")} · ${migration.path}`);
    put(this.find(".words"), this.words());
    const bar = this.find(".bar");
    set(bar, "aria-label", `Rows done: ${migration.name}`);
    set(this.find(".scroll"), "aria-label", `Certificates sent per minute: ${migration.name}`);
    set(bar, "aria-valuemax", rows);
    set(bar, "aria-valuenow", done);
    set(bar, "aria-valuetext", `${done} of ${rows}`);
    for (const part of bar.children) part.style.width = `${rows ? (100 * counts[part.className]) / rows : 0}%`;
    const percent = rows ? Math.floor((100 * done) / rows) : 100;
    put(this.find(".tally"), `${number(done)} of ${count(rows, "row")} done (${percent} %)`);
    const haveAndWere = migration.faulty === 1 ? "has faults and was" : "have faults and were";
    show(this.find(".left-out"), migration.faulty > 0);
    put(this.find(".left-out"), `${count(migration.faulty, "row")} of the manifest ${haveAndWere} left out (--skip-faulty): see springest check.`);
    for (const state of Object.keys(STATES)) put(this.find(`.outcomes .${state} dd`), number(counts[state]));
    const pause = this.find(".pause");
    show(pause, activity !== "done" && (activity !== "in_doubt" || migration.paused_at !== null));
    put(pause, migration.paused_at ? "Resume" : "Pause");
    pause.classList.toggle("main", migration.paused_at !== null);
    set(pause, "aria-label", `${pause.textContent}: ${migration.name}`);
    this.posts();
    this.reasons();
    this.sending();
    this.last();
    this.enable();
    if (before === migration) return;
    if (before.activity !== activity) say(`${migration.name}: ${ACTIVITIES[activity]}`);
    else if (counts.in_doubt && !before.counts.in_doubt)
      say(`${migration.name}: ${count(counts.in_doubt, "row")} in doubt`);
  }

  words() {
    const { activity, counts, settling, workers, trouble: wrong, seconds_left: left, paused_at: paused } = this.migration;
    const machines = [...new Set(workers.map((worker) => worker.machine))].join(", ").replace(/, ([^,]*)$/, " and $1");
    switch (activity) {
      case "running": {
        const is = workers.length === 1 ? `A run on ${machines} is` : `${workers.length} runs on ${machines} are`;
        if (!counts.waiting && !counts.sending)
          return settling ? `${is} asking Springest about the rows in doubt.` : `${is} finishing: only rows in doubt are left.`;
        const who = `${is} uploading.`;
        if (!counts.waiting) return who;
        const end = when(new Date(Date.now() + 1000 * left));
        return `${who} All rows that wait can be sent in ${duration(left)}, by ${end}.`;
      }
      case "outage": {
        const next = wrong.again_in === null || wrong.again_in < 1 ? "now" : `in ${duration(wrong.again_in)}`;
        return `The run on ${wrong.machine} has had ${wrong.trouble} for ${duration(wrong.seconds)} (${wrong.reason}). It tries again by itself ${next}.`;
      }
      case "paused": {
        const rest = counts.sending ? `${count(counts.sending, "upload")} in progress will be finished. ` : "";
        const then = workers.length ? "Resume, and the run goes on." : "No run is waiting: after you resume, start springest upload again.";
        return `Paused since ${when(new Date(paused))}: nothing new is sent. ${rest}${then}`;
      }
      case "stopped":
        return "No run is uploading this at the moment. The same “springest upload” as before goes on where it stopped.";
      case "in_doubt":
        return "Everything else is done. Only rows in doubt are left, which wait for your answer.";
      default: {
        const lost = counts.rejected + counts.failed;
        return lost ? `Every row has an answer. ${count(lost, "row")} ${lost === 1 ? "is" : "are"} not stored.` : `Every row${this.migration.faulty ? " without faults" : ""} is stored.`;
      }
    }
  }

  async pause(button) {
    const verb = this.migration.paused_at ? "resume" : "pause";
    this.busy = true;
    this.enable();
    const answer = await post(`migrations/${this.migration.migration}/${verb}`);
    this.busy = false;
    this.enable();
    if (answer) say(`${this.migration.name}: ${verb === "pause" ? "paused" : "goes on"}`);
    button.focus();
  }

  // --- throughput ---

  posts() {
    const { activity, minutes, pace } = this.migration;
    show(this.find(".posts"), minutes !== null);
    if (minutes === null) return;
    const { limit } = minutes; // the largest of the hour: that of today may be smaller
    const now = pace.posts_per_minute === limit ? "" : `, now ${pace.posts_per_minute}`;
    const most = Math.max(...minutes.posts);
    const next = pace.free ? `; ${pace.free} can leave now` : `; the next can leave in ${duration(pace.next_in)}`;
    const free = activity === "running" ? next : ""; // else none leaves, whatever the limit allows
    const slow = pace.one_at_a_time ? " Springest refused some, so they leave one at a time." : "";
    put(this.find(".pace"), `${pace.last_minute} in the last minute${free}. All uploads with this key share the limit.${slow}`);
    const text = JSON.stringify([minutes, now]);
    if (text === this.shown.posts) return;
    this.shown.posts = text;
    const top = Math.max(most, limit * 1.2);
    const marks = [];
    minutes.posts.forEach((posts, index) => {
      let y = 100;
      const parts = {
        stored: minutes.stored[index],
        refused: minutes.refused[index],
        other: posts - minutes.stored[index] - minutes.refused[index],
      };
      for (const [kind, value] of Object.entries(parts)) {
        if (value <= 0) continue;
        const height = (100 * value) / top;
        y -= height;
        marks.push(mark("rect", { class: kind, x: index * 10 + 1, y, width: 8, height }));
      }
    });
    const y = 100 - (100 * limit) / top;
    marks.push(mark("line", { x1: 0, x2: 600, y1: y, y2: y }));
    const svg = this.find("svg");
    svg.replaceChildren(...marks);
    set(
      svg,
      "aria-label",
      `Certificates sent in each of the last ${minutes.posts.length} minutes: at most ${most} in one; the limit is ${limit}${now}`,
    );
    const label = this.find(".limit");
    put(label, `limit: ${limit} a minute${now}`);
    label.style.top = `${y}%`;
    put(this.find(".from"), clock(new Date(1000 * minutes.begin)));
    this.table();
  }

  table() {
    const { minutes } = this.migration;
    if (!this.find(".numbers").open || minutes === null || this.shown.table === this.shown.posts) return;
    this.shown.table = this.shown.posts;
    const lines = [];
    minutes.posts.forEach((posts, index) => {
      if (!posts) return;
      const line = make("tr");
      const at = new Date(1000 * (minutes.begin + index * minutes.seconds));
      for (const value of [minutes.seconds < 60 ? toSecond(at) : clock(at), posts, minutes.stored[index], minutes.refused[index]])
        line.append(make("td", String(value)));
      lines.unshift(line);
    });
    this.find("tbody").replaceChildren(...lines);
  }

  // --- lists ---

  list(name, items, line) {
    show(this.find(`.list-${name}`), items.length > 0);
    const text = JSON.stringify(items);
    if (text === this.shown[name]) return;
    this.shown[name] = text;
    this.find(`.list-${name} > :is(ul, ol)`).replaceChildren(
      ...items.map((item) => {
        const element = make("li");
        element.append(...line(item));
        return element;
      }),
    );
  }

  reasons() {
    this.list("reasons", this.migration.reasons, (reason) => [
      make("span", `${count(reason.rows, "row")} ${reason.state}`, `state ${reason.state}`),
      `: ${reason.words}`,
    ]);
    const more = this.migration.more_reasons;
    put(this.find(".rest"), more ? `and ${count(more, "other reason")}` : "");
  }

  sending() {
    const rows = this.migration.sending.map(({ row, seconds }) => [row, duration(seconds)]);
    this.list("sending", rows, ([row, lasting]) => [`Row ${number(row)}, for ${lasting}`]);
  }

  last() {
    // What never left has no answer, and an outage has many of it.
    const answered = this.migration.last.filter(({ state, status }) => state !== "waiting" || status !== null);
    this.list("last", answered, (outcome) => {
      const at = make("time", toSecond(new Date(outcome.at)));
      at.dateTime = outcome.at;
      const state = outcome.state === "waiting" ? "refused, to be sent again" : STATES[outcome.state].toLowerCase();
      const said = outcome.reason || (outcome.state === "waiting" ? `HTTP ${outcome.status}` : "");
      return [at, ` row ${number(outcome.row)}: `, make("span", state, `state ${outcome.state}`), said ? ` (${said})` : ""];
    });
  }
}

function mark(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// --- the rows in doubt of one migration ---

class Doubts {
  constructor(card) {
    this.card = card;
    this.element = card.find(".doubts");
    this.starts = [0]; // after which row each page up to this one begins
    this.rows = [];
    this.count = 0; // when they were read
    this.version = ""; // of what was, or is being, read
    onPress(this.find(".all-stored"), () => this.answer(this.answerable, "stored"));
    onPress(this.find(".all-again"), () => this.answer(this.answerable, "send again"));
    onPress(this.find(".previous"), () => this.turn(() => this.starts.pop()));
    onPress(this.find(".next"), () => this.turn(() => this.starts.push(this.rows.at(-1).row)));
    this.element.addEventListener("toggle", () => this.update());
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  update() {
    const rows = this.card.migration.counts.in_doubt;
    show(this.element, rows > 0);
    const asked = this.card.migration.settling;
    const who = rows === 1 ? "it waits" : "they wait";
    const which = rows === 1 ? "it" : asked === rows ? "them" : `${number(asked)} of them`;
    const what = asked ? `a run is asking Springest about ${which} now` : `${who} for your answer`;
    put(this.find("summary"), rows ? `${count(rows, "row")} in doubt: ${what}` : "");
    this.label();
    if (!rows) this.starts = [0];
    // A long list would hide all that is below it.
    else if (!this.isKnown) this.element.open = rows <= 10;
    this.isKnown ||= rows > 0;
    if (rows && this.element.open && this.card.migration.doubts !== this.version && !isAway()) this.read();
  }

  // Another manifest on the page may have the same rows.
  label() {
    const { name } = this.card.migration;
    set(this.find(".all"), "aria-label", `All rows on this page: ${name}`);
    set(this.find(".all-stored"), "aria-label", `Springest has them: ${name}`);
    set(this.find(".all-again"), "aria-label", `Send again: ${name}`);
    set(this.find(".pages"), "aria-label", `Pages of rows in doubt: ${name}`);
    set(this.find(".previous"), "aria-label", `Previous 50: ${name}`);
    set(this.find(".next"), "aria-label", `Next 50: ${name}`);
    for (const item of this.find("ol").children) {
      const row = item.querySelector("strong").textContent.toLowerCase();
      set(item.querySelector(".has"), "aria-label", `Springest has it: ${row} of ${name}`);
      set(item.querySelector(".again"), "aria-label", `Send again: ${row} of ${name}`);
    }
  }

  // A run that asks Springest about a row answers for it, and refuses anybody else's answer meanwhile.
  get answerable() {
    return this.rows.filter((row) => row.asked_by === null);
  }

  async turn(change) {
    change();
    await this.read();
    this.find("summary").focus();
    this.find("summary").scrollIntoView();
  }

  async read() {
    if (this.reading) {
      this.stale = true;
      return;
    }
    this.reading = true;
    do {
      this.stale = false;
      const { doubts, counts } = this.card.migration;
      this.version = doubts;
      try {
        const answer = await fetch(`migrations/${this.card.migration.migration}/doubts?after=${this.starts.at(-1)}`);
        // The journal is away, which the page says; when it is back, they are read again.
        if (!answer.ok) throw new Error(answer.statusText);
        const { rows, more } = await answer.json();
        if (rows.length === 0 && this.starts.length > 1) {
          this.starts = [0];
          this.stale = true;
          continue;
        }
        this.count = counts.in_doubt;
        this.show(rows, more);
      } catch {
        this.version = "";
        break;
      }
    } while (this.stale);
    this.reading = false;
  }

  show(rows, more) {
    const list = this.find("ol");
    const known = new Map([...list.children].map((item) => [item.dataset.shows, item]));
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    const index = focused ? [...list.children].indexOf(focused.closest("li")) : this.answered;
    this.answered = undefined;
    this.rows = rows;
    const items = rows.map((row) => known.get(JSON.stringify(row)) ?? this.item(row));
    items.forEach((item, place) => {
      if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
    });
    while (list.children.length > items.length) list.lastElementChild.remove();
    if (index !== undefined && !list.contains(document.activeElement)) {
      const next = list.children[Math.min(index, items.length - 1)];
      (next?.querySelector(".buttons:not([hidden]) button") ?? this.find("summary")).focus();
    }
    this.label();
    const answerable = this.answerable.length;
    show(this.find(".all"), answerable > 1);
    put(this.find(".all span"), answerable === rows.length ? `All ${rows.length} rows on this page:` : `The other ${answerable} rows on this page:`);
    const first = (this.starts.length - 1) * PAGE;
    show(this.find(".pages"), more || first > 0);
    show(this.find(".previous"), first > 0);
    show(this.find(".next"), more);
    put(this.find(".pages span"), `${number(first + 1)} to ${number(first + rows.length)} of ${number(Math.max(this.count, first + rows.length))}`);
    this.card.enable();
  }

  item(row) {
    const item = $("doubt").content.firstElementChild.cloneNode(true);
    item.dataset.shows = JSON.stringify(row); // a row may be sent again, and be in doubt for another reason
    put(item.querySelector("strong"), `Row ${number(row.row)}`);
    put(item.querySelector(".file"), row.file);
    put(item.querySelector(".whose"), describe(row));
    const sent = row.sent_at ? `Sent ${day(new Date(row.sent_at))} ${toSecond(new Date(row.sent_at))}` : "Sent";
    put(item.querySelector(".why"), `${sent}: ${row.reason}. Request ${row.request_id}`);
    const has = item.querySelector(".has");
    const send = item.querySelector(".again");
    show(item.querySelector(".asked"), row.asked_by !== null);
    put(item.querySelector(".asked"), `The run on ${row.asked_by || "another machine"} is asking Springest about it now, so it needs no answer yet.`);
    show(item.querySelector(".buttons"), row.asked_by === null);
    onPress(has, () => this.answer([row], "stored"));
    onPress(send, () => this.answer([row], "send again"));
    return item;
  }

  async answer(rows, answer) {
    const one = rows.length === 1;
    const what = one ? `row ${number(rows[0].row)}` : `these ${rows.length} rows`;
    const { name } = this.card.migration;
    const which = one ? `${name}: ${rows[0].file}\n${describe(rows[0])}` : `${name}: rows ${rows.map((row) => row.row).join(", ")}`;
    const stored = answer === "stored";
    const title = stored ? `Does Springest have ${what}?` : `Send ${what} again?`;
    const it = one ? "it" : "them";
    const text = stored
      ? `${which}\n\nIf you have seen ${it} at Springest, say so: then ${it === "it" ? "it is" : "they are"} never sent again.`
      : `${which}\n\nOnly if Springest does not have ${it}. What Springest has already would be stored twice. A run that is uploading sends ${it} soon, otherwise the next “springest upload” does.`;
    const list = this.find("ol");
    const item = document.activeElement?.closest("li");
    const place = item ? [...list.children].indexOf(item) : undefined;
    if (!(await ask(title, text, stored ? `Yes, Springest has ${it}` : "Yes, send again"))) return;
    this.card.busy = true;
    this.card.enable();
    const done = await post(`migrations/${this.card.migration.migration}/answers`, {
      rows: Object.fromEntries(rows.map((row) => [row.row, row.request_id])),
      answer,
    });
    this.card.busy = false;
    this.card.enable();
    if (done) say(`${count(done.changed, "row")} ${stored ? "marked as stored" : "put back to be sent again"}.`);
    this.answered = place ?? 0;
    await this.read();
  }
}

function describe(row) {
  const until = row.valid_until ? `${row.valid_from} to ${row.valid_until}` : `from ${row.valid_from}`;
  return `${row.email} · certification ${row.certification} · valid ${until}`;
}

connect();
