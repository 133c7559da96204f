// The rows stay in the kernel; here is one page of them. What a person asks for goes to the model, the rows come back.
const TONES = { "✓": "mciot-good", "✗": "mciot-problem", "⚠": "mciot-warning" };
const ARROWS = { none: "", ascending: " ▲", descending: " ▼" };

function make(tag, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

// Times and numbers break at their blanks alone; a sign in front stays with its word, as UTC behind does with its time.
function fill(cell, text) {
  text.split(/(?<!^.) (?!\S{1,3}$)/u).forEach((words, position) => {
    if (position) cell.append(" ");
    make("span", cell, { textContent: words });
  });
}

const counted = (number) => number.toLocaleString("en");

function render({ model, el }) {
  el.classList.add("mciot-live-table");
  const id = `mciot-table-${Math.random().toString(36).slice(2)}`;
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
  const box = make("div", el, { className: "mciot-table-box", tabIndex: 0 }, { role: "region" });
  box.setAttribute("aria-label", model.get("label"));
  const table = make("table", box);
  make("caption", table, { textContent: model.get("label") });
  const head = make("tr", make("thead", table));
  const body = make("tbody", table);
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

  const sortBy = (name) => {
    const [sorted, descending] = [model.get("sort") === name, model.get("descending")];
    if (sorted && descending) ask({ sort: "", descending: false }); // the third press: the order they came in
    else ask({ sort: name, descending: sorted });
  };

  const drawHead = () => {
    make("td", head); // above the buttons that open a row
    for (const name of model.get("columns")) {
      const direction = model.get("sort") !== name ? "none" : model.get("descending") ? "descending" : "ascending";
      const cell = make("th", head, {}, { scope: "col", "aria-sort": direction });
      const button = make("button", cell, { type: "button", textContent: name });
      make("span", button, { textContent: ARROWS[direction] }, { "aria-hidden": "true" });
      button.dataset.is = `sort ${name}`;
      button.addEventListener("click", () => sortBy(name));
    }
  };

  const drawRow = ([key, ...texts]) => {
    const opened = model.get("opened") === key;
    const mark = model.get("news")[key];
    const row = make("tr", body);
    row.classList.toggle("mciot-new", Boolean(mark));
    row.classList.toggle("mciot-is-open", opened);
    const open = make("button", make("td", row), { type: "button", textContent: opened ? "Close" : "Open" });
    open.className = "jupyter-button";
    open.dataset.is = `open ${key}`;
    open.setAttribute("aria-label", `${open.textContent} ${texts[0]}`);
    open.setAttribute("aria-expanded", String(opened));
    open.addEventListener("click", () => ask({ opened: opened ? "" : key }));
    texts.forEach((text, position) => {
      const cell = make(position ? "td" : "th", row, {}, position ? {} : { scope: "row" });
      const wide = model.get("wide").includes(model.get("columns")[position]);
      cell.dataset.column = model.get("columns")[position]; // where the page is narrow, it stands before the text
      if (wide) Object.assign(cell, { textContent: text, className: "mciot-wide" });
      else fill(cell, text);
      const tone = text[1] === " " && TONES[text[0]];
      if (tone) cell.classList.add(tone);
      if (mark && !position) make("span", cell, { textContent: mark, className: "mciot-mark" });
    });
  };

  const drawBottom = () => {
    const last = first() + model.get("rows").length;
    for (const button of back) button.ariaDisabled = String(first() === 0);
    for (const button of forward) button.ariaDisabled = String(last >= found());
    bottom.hidden = found() <= size();
    place.textContent = `${counted(first() + 1)} to ${counted(last)} of ${counted(found())}`;
  };

  const draw = () => {
    const focused = box.contains(document.activeElement) && document.activeElement.dataset.is;
    head.replaceChildren();
    body.replaceChildren();
    drawHead();
    for (const row of model.get("rows")) drawRow(row);
    const total = model.get("total");
    if (!found()) {
      const cell = make("td", make("tr", body), { textContent: total ? "No row has all these words." : "No row yet." });
      cell.colSpan = model.get("columns").length + 1;
    }
    // Rows that come must not throw anybody out: where the button is gone, the table itself is where it was.
    if (focused) ([...box.querySelectorAll("button")].find((button) => button.dataset.is === focused) ?? box).focus();
    drawBottom();
    const rows = `${counted(total)} ${total === 1 ? "row" : "rows"}.`;
    const words = found() === total ? rows : `${counted(found())} of ${rows}`;
    const sentence = [model.get("status"), words].filter(Boolean).join(" ");
    if (status.textContent !== sentence) status.textContent = sentence; // else it would be spoken again
  };

  let due; // several things change at once: they are drawn together
  const drawSoon = () => {
    due ??= setTimeout(() => {
      due = undefined;
      draw();
    });
  };
  const refill = () => {
    if (document.activeElement !== filter) filter.value = model.get("filter"); // somebody typed in another view of it
  };

  // Else a letter typed here is a command of the Lab.
  const stop = (event) => event.ctrlKey || event.metaKey || event.stopPropagation(); // Ctrl+S saves the notebook
  for (const kind of ["keydown", "keypress", "keyup"]) el.addEventListener(kind, stop);
  const watched = ["rows", "columns", "total", "found", "opened", "status", "sort", "descending", "first", "news"];
  const events = watched.map((name) => `change:${name}`).join(" ");
  model.on(events, drawSoon);
  model.on("change:filter", refill);
  draw();
  return () => {
    clearTimeout(due);
    clearTimeout(typing);
    model.off(events, drawSoon);
    model.off("change:filter", refill);
  };
}

export default { render };
