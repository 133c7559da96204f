// What ipywidgets lacks: a field for a secret, one for a file, a table of any length, and the poller of a panel.
// Each widget's `view` names its function below. Nothing secret and no file's bytes is ever set on a model, because
// the Lab may write the models' state into the notebook file: they go to the kernel as messages.
const PING = 5000; // milliseconds; the kernel polls for some time after each ping
const DOUBLE = 400; // milliseconds between two presses that are one

function make(tag, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

const newId = () => `mciot-${Math.random().toString(36).slice(2)}`;

// Without it a key pressed in `el` is a command of the Lab, such as X, which cuts the cell. Ctrl+S still saves the
// notebook, unless `every` key belongs to the element.
function guardKeyboard(el, every = false) {
  if (every) el.setAttribute("data-lm-suppress-shortcuts", "true");
  const stop = (event) => (!every && (event.ctrlKey || event.metaKey)) || event.stopPropagation();
  for (const kind of ["keydown", "keypress", "keyup"]) el.addEventListener(kind, stop);
}

// Calls `handler` whenever one of the traits changes; returns what ends that.
function follow(model, traits, handler) {
  const events = traits.map((name) => `change:${name}`).join(" ");
  model.on(events, handler);
  return () => model.off(events, handler);
}

function makeSecretRow(parent, label, id, noteId) {
  const row = make("div", parent, { className: "mciot-secret-row" });
  make("label", row, { htmlFor: id, textContent: label });
  const attributes = { autocapitalize: "off", "aria-describedby": noteId };
  return make("input", row, { id, type: "password", autocomplete: "new-password", spellcheck: false }, attributes);
}

const COMMON = ["passwor", "passphras", "qwert", "asdfg", "letmein", "welcome", "iloveyou", "admin", "secret", "geheim", "hallo", "changeit", "changeme", "monkey", "dragon"];
const LOOKALIKES = { 0: "o", 1: "i", 3: "e", 4: "a", 5: "s", "@": "a", $: "s", "!": "i" };
const SETS = [[/[a-z]/, 26], [/[A-Z]/, 26], [/[0-9]/, 10], [/[^a-zA-Z0-9\u0080-\uffff]/, 33], [/[\u0080-\uffff]/, 100]];

// An estimate in words, made here, where the text is. A character that repeats the one before, or stands beside it in
// the alphabet, counts nothing, and of few different ones not many count.
export function strength(text, shortest) {
  const letters = [...text];
  if (letters.length < shortest) return `✗ Strength: too short, ${shortest} characters at least.`;
  const plain = letters.map((letter) => LOOKALIKES[letter] ?? letter.toLowerCase()).join("");
  if (COMMON.some((word) => plain.includes(word) && plain.length - word.length < 6))
    return "⚠ Strength: weak, little more than a very common password.";
  const far = (letter, at) => !at || Math.abs(letter.codePointAt(0) - letters[at - 1].codePointAt(0)) > 1;
  const counted = Math.min(letters.filter(far).length, 2 * new Set(letters).size);
  if (counted <= letters.length / 2) return "⚠ Strength: weak, it repeats itself or runs through the alphabet.";
  const choices = SETS.reduce((sum, [set, size]) => sum + (set.test(text) ? size : 0), 0);
  const bits = counted * Math.log2(choices);
  if (bits < 50) return "⚠ Strength: weak, make it longer or mix in other characters.";
  if (bits < 75) return "✓ Strength: fair; a longer one is stronger.";
  return "✓ Strength: strong, unless it can be looked up (a name, a date, a quotation).";
}

function secret({ model, el }) {
  el.classList.add("mciot-secret");
  guardKeyboard(el, true);
  let parent = el;
  if (model.get("folded")) {
    parent = make("details", el);
    make("summary", parent, { textContent: model.get("folded") });
  }
  if (model.get("hint")) make("p", parent, { textContent: model.get("hint") });
  const id = newId();
  const input = makeSecretRow(parent, "", id, `${id}-note`);
  const repeated = makeSecretRow(parent, "Repeat it", `${id}-repeated`, `${id}-note`);
  const last = () => (model.get("twice") ? repeated : input);
  const use = { type: "button", className: "jupyter-button", textContent: "Use" };
  const button = make("button", parent, use);
  const line = (of) => make("div", parent, { id: `${id}-${of}`, className: "mciot-note" }, { role: "status" });
  const [rating, note] = [line("rating"), line("note")];

  const rate = () => {
    const isNew = model.get("twice") && model.get("shortest");
    const words = isNew && input.value ? strength(input.value, model.get("shortest")) : "";
    if (rating.textContent !== words) rating.textContent = words; // else it would be spoken at each key
  };
  const show = () => {
    input.previousSibling.textContent = model.get("label");
    button.setAttribute("aria-label", `Use this: ${model.get("label")}`);
    rate();
    const typed = input.value || repeated.value;
    note.textContent = typed ? "Typed, not confirmed yet: press Enter." : model.get("status");
    repeated.parentElement.hidden = !model.get("twice");
    if (button.parentElement !== last().parentElement) last().after(button);
  };
  let isTyped = false; // what the kernel was told; a cell that is run meanwhile must not go on without it
  const tell = () => {
    const typed = Boolean(input.value || repeated.value);
    if (typed !== isTyped) model.send({ typed });
    isTyped = typed;
  };
  const send = () => {
    if (!input.value) return;
    isTyped = false;
    model.send({ secret: input.value, repeated: repeated.value });
    input.value = repeated.value = "";
    rate();
    note.textContent = "Confirming …"; // stays where no kernel answers
    if (model.get("twice")) input.focus(); // where both are typed again if they differ
  };
  el.addEventListener("input", () => (show(), tell()));
  input.addEventListener("blur", () => model.get("when_left") && send());
  button.addEventListener("click", send);
  el.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || ![input, repeated].includes(event.target)) return;
    event.preventDefault(); // Shift+Enter too: it would run the cell
    if (event.target === last()) send();
    else repeated.focus();
  });
  show();
  return follow(model, ["status", "twice", "label"], show);
}

function file({ model, el }) {
  el.classList.add("mciot-file");
  guardKeyboard(el);
  const id = newId();
  make("label", el, { htmlFor: id, textContent: model.get("label") });
  const input = make("input", el, { id, type: "file" }, { "aria-describedby": `${id}-note` });
  make("span", el, { className: "mciot-drop", textContent: "or drop it here" });
  const note = make("div", el, { id: `${id}-note`, className: "mciot-note" }, { role: "status" });

  const hand = async (files, folder) => {
    note.textContent = "Confirming …"; // stays where no kernel answers
    note.classList.remove("mciot-problem");
    const [first] = files;
    if (files.length !== 1) return model.send({ problem: files.length ? "several" : "none" });
    const head = { name: first.name, size: first.size };
    if (folder) return model.send({ ...head, problem: "folder" });
    if (first.size > model.get("longest")) return model.send(head);
    try {
      model.send(head, undefined, [await first.arrayBuffer()]);
    } catch {
      model.send({ ...head, problem: "unreadable" });
    }
  };
  input.addEventListener("change", () => {
    if (input.files.length) hand([...input.files], false);
    input.value = ""; // so that the same file can be chosen again once it is mended
  });
  const over = (event, on) => {
    event.preventDefault(); // else the browser opens the file in place of the Lab
    event.stopPropagation();
    el.classList.toggle("mciot-over", on);
  };
  el.addEventListener("dragover", (event) => over(event, true));
  el.addEventListener("dragleave", (event) => over(event, el.contains(event.relatedTarget)));
  el.addEventListener("drop", (event) => {
    over(event, false);
    const { items, files } = event.dataTransfer;
    hand([...files], [...items].some((item) => item.webkitGetAsEntry?.()?.isDirectory));
  });
  const show = () => {
    note.textContent = model.get("status");
    note.classList.toggle("mciot-problem", note.textContent.startsWith("✗"));
  };
  show();
  return follow(model, ["status"], show);
}

// A table: the rows stay in the kernel, here is one page of them.
const TONES = { "✓": "mciot-good", "✗": "mciot-problem", "⚠": "mciot-warning" };
const ARROWS = { none: "", ascending: " ▲", descending: " ▼" };
const WATCHED = ["rows", "columns", "total", "found", "opened", "status", "sort", "descending", "first", "news"];
const counted = (number) => number.toLocaleString("en");

// Times and numbers break at their blanks alone; a sign in front stays with its word, as UTC behind does with its time.
function fill(cell, text) {
  text.split(/(?<!^.) (?!\S{1,3}$)/u).forEach((words, position) => {
    if (position) cell.append(" ");
    make("span", cell, { textContent: words });
  });
}

function drawHead(model, head, ask) {
  const sortBy = (name) => {
    const [sorted, descending] = [model.get("sort") === name, model.get("descending")];
    if (sorted && descending) ask({ sort: "", descending: false }); // the third press: the order they came in
    else ask({ sort: name, descending: sorted });
  };
  make("td", head); // above the buttons that open a row
  for (const name of model.get("columns")) {
    const direction = model.get("sort") !== name ? "none" : model.get("descending") ? "descending" : "ascending";
    const cell = make("th", head, {}, { scope: "col", "aria-sort": direction });
    const button = make("button", cell, { type: "button", textContent: name });
    make("span", button, { textContent: ARROWS[direction] }, { "aria-hidden": "true" });
    button.dataset.is = `sort ${name}`;
    button.addEventListener("click", () => sortBy(name));
  }
}

function drawRow(model, body, [key, ...texts], ask) {
  const [opened, mark] = [model.get("opened") === key, model.get("news")[key]];
  const row = make("tr", body);
  row.classList.toggle("mciot-new", Boolean(mark));
  row.classList.toggle("mciot-is-open", opened);
  const words = opened ? "Close" : "Open";
  const properties = { type: "button", textContent: words, className: "jupyter-button" };
  const attributes = { "aria-label": `${words} ${texts[0]}`, "aria-expanded": opened };
  const open = make("button", make("td", row), properties, attributes);
  open.dataset.is = `open ${key}`;
  open.addEventListener("click", () => ask({ opened: opened ? "" : key }));
  texts.forEach((text, position) => {
    const cell = make(position ? "td" : "th", row, {}, position ? {} : { scope: "row" });
    cell.dataset.column = model.get("columns")[position]; // where the page is narrow, it stands before the text
    if (model.get("wide").includes(cell.dataset.column)) {
      cell.className = "mciot-wide";
      for (const part of text.split(/(?=\/)/)) cell.append(part, document.createElement("wbr")); // no break in a word
    } else fill(cell, text);
    const tone = text[1] === " " && TONES[text[0]];
    if (tone) cell.classList.add(tone);
    if (mark && !position) make("span", cell, { textContent: mark, className: "mciot-mark" });
  });
}

function table({ model, el }) {
  el.classList.add("mciot-live-table");
  guardKeyboard(el);
  const id = newId();
  const ask = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const top = make("div", el, { className: "mciot-table-top" });
  make("label", top, { htmlFor: id, textContent: "Filter" });
  const filter = make("input", top, { id, type: "search", spellcheck: false, value: model.get("filter") });
  const status = make("span", top, { className: "mciot-table-status" }, { role: "status" });
  let typing;
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => ask({ filter: filter.value }), 150);
  });

  // A table that is wider than the page scrolls, by keyboard too.
  const region = { role: "region", "aria-label": model.get("label") };
  const box = make("div", el, { className: "mciot-table-box", tabIndex: 0 }, region);
  const inBox = make("table", box);
  make("caption", inBox, { textContent: model.get("label") });
  const head = make("tr", make("thead", inBox));
  const body = make("tbody", inBox);
  const bottom = make("div", el, { className: "mciot-table-bottom" });
  const turn = (text, goal) => {
    const button = make("button", bottom, { type: "button", textContent: text, className: "jupyter-button" });
    button.addEventListener("click", () => button.ariaDisabled !== "true" && ask({ first: goal() }));
    return button;
  };
  const [first, size, found] = ["first", "page_size", "found"].map((name) => () => model.get(name));
  const back = [turn("« First", () => 0), turn("‹ Previous", () => first() - size())];
  const place = make("span", bottom);
  const forward = [turn("Next ›", () => first() + size()), turn("Last »", () => found() - 1)];

  const drawBottom = () => {
    const last = first() + model.get("rows").length;
    for (const button of back) button.ariaDisabled = String(first() === 0);
    for (const button of forward) button.ariaDisabled = String(last >= found());
    bottom.hidden = found() <= size();
    place.textContent = `${counted(first() + 1)} to ${counted(last)} of ${counted(found())}`;
  };
  let due;
  const draw = () => {
    due = undefined;
    if (box.querySelector("button:active")) return void (due = setTimeout(draw, 50)); // a press is under way
    const focused = box.contains(document.activeElement) && document.activeElement.dataset.is;
    head.replaceChildren();
    body.replaceChildren();
    drawHead(model, head, ask);
    for (const row of model.get("rows")) drawRow(model, body, row, ask);
    const total = model.get("total");
    if (!found()) {
      const cell = make("td", make("tr", body), { textContent: total ? "No row has all these words." : "No row yet." });
      cell.colSpan = model.get("columns").length + 1;
    }
    // Rows that come must not take the focus away: where the button is gone, the table itself is where it was.
    if (focused) ([...box.querySelectorAll("button")].find((button) => button.dataset.is === focused) ?? box).focus();
    drawBottom();
    const rows = `${counted(total)} ${total === 1 ? "row" : "rows"}.`;
    const words = found() === total ? rows : `${counted(found())} of ${rows}`;
    const sentence = [model.get("status"), words].filter(Boolean).join(" ");
    if (status.textContent !== sentence) status.textContent = sentence; // else it would be spoken again
  };
  const drawSoon = () => void (due ??= setTimeout(draw)); // several traits change at once: they are drawn together
  const refill = () => {
    if (document.activeElement !== filter) filter.value = model.get("filter"); // typed in another view of it
  };
  const ends = [follow(model, WATCHED, drawSoon), follow(model, ["filter"], refill)];
  draw();
  return () => {
    clearTimeout(due);
    clearTimeout(typing);
    for (const end of ends) end();
  };
}

// ipywidgets sends a press at once, and what was typed only when the kernel has taken the keys before: the press would
// come first. So a press waits for one answer of the kernel, by which time the change before it has been sent; what is
// typed and pressed meanwhile waits behind it, and the buttons show it. A press that follows at once at the same place,
// or by a key that is pressed again or held, is part of a double one, which counts once.
function keepOrder(panel, model) {
  let [replaying, last, down, before] = [false];
  const waiting = [];
  const far = (event, from) => !from || Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > 8;
  const send = () => {
    panel.classList.toggle("mciot-waiting", waiting.length);
    if (waiting.length) model.send("settle");
  };
  const note = (event) => {
    const { type, target } = event;
    const element = type === "click" ? target.closest("button") : target;
    if (replaying || !element) return;
    const press = type === "click" && element.matches(".widget-button"); // others open a row, for one
    if (!press) last = undefined; // something was done between: the next press is one of its own
    if (!press && !waiting.length) return;
    event.stopPropagation();
    const same = element === last?.element || (event.detail && !far(event, last)); // by a key it has no place
    const twice = press && same && event.timeStamp - last.timeStamp < DOUBLE;
    if (press) last = Object.assign(event, { element });
    if (twice) return;
    if (waiting.push({ type, element, press, value: element.value }) === 1) send();
  };
  const replay = ({ type, element, value }) => {
    if (type === "click") element.click();
    if (type === "click") return element.closest(".mciot-question") && before?.focus(); // it goes with its question
    const { value: now, selectionStart: start, selectionEnd: end } = element; // what is typed and selected by now
    if (now !== value) element.value = value;
    element.dispatchEvent(new Event(type, { bubbles: true }));
    if (element.value !== now) element.value = now;
    if (now !== value && start != null) element.setSelectionRange(start, end);
  };
  const settled = () => {
    replaying = true;
    while (waiting.length) {
      replay(waiting.shift());
      if (waiting[0]?.press) break;
    }
    replaying = false;
    send();
  };
  // Space presses at once, as Enter does: the focus may have moved on before it is released. Enter in a field of a row
  // presses the button that follows it there; a hasty one, after another press, is none.
  const key = (event) => {
    if (![" ", "Enter"].includes(event.key)) return void (last = undefined);
    const { target } = event;
    const field = event.key === "Enter" && !event.isComposing && target.matches(".mciot-row input[type=text]");
    const buttons = field ? [...target.closest(".mciot-row").querySelectorAll(".widget-button")] : [];
    const pressed = field ? buttons.find((one) => target.compareDocumentPosition(one) & 4) : target;
    if (event.ctrlKey || event.metaKey || !pressed?.matches(".widget-button")) return;
    event.preventDefault();
    const hasty = field && (event.repeat || event.timeStamp - last?.timeStamp < DOUBLE);
    if (event.type === "keydown" && !hasty) pressed.click();
  };
  // What is drawn meanwhile may move a button from under the pointer; one that is drawn away from it is not pressed.
  const hold = (event) => (down = event).target.closest("button")?.setPointerCapture(event.pointerId);
  const leave = (event) => far(event, down) && event.target.releasePointerCapture(event.pointerId);
  const keep = ({ target }) => target.closest(".mciot-question") || (before = target);
  for (const type of ["input", "change", "click"]) panel.addEventListener(type, note, true);
  for (const type of ["keydown", "keyup"]) panel.addEventListener(type, key, true);
  panel.addEventListener("focusin", keep);
  panel.addEventListener("pointerdown", hold);
  panel.addEventListener("pointermove", leave);
  model.on("msg:custom", settled);
  return () => model.off("msg:custom", settled);
}

// An invisible part of a panel.
function poller({ model, el }) {
  el.style.display = "none";
  let [frame, end] = [0, () => {}];
  const findPanel = () => {
    const panel = el.closest(".mciot-form");
    if (!panel) return void (frame = requestAnimationFrame(findPanel)); // not in its place yet
    guardKeyboard(panel);
    end = keepOrder(panel, model);
  };
  findPanel();
  const timer = setInterval(() => model.send("ping"), PING);
  model.send("ping");
  return () => {
    clearInterval(timer);
    cancelAnimationFrame(frame);
    end();
    model.send("gone");
  };
}

const VIEWS = { secret, file, table, poller };
export default { render: ({ model, el }) => VIEWS[model.get("view")]({ model, el }) };
