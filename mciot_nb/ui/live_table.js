// The rows stay in the kernel; here is one page of them. What a person asks for goes to the model, the rows come back.
function make(tag, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

function render({ model, el }) {
  el.classList.add("mciot-live-table");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // else a letter typed here is a command of the Lab
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
  const turn = (text, by) => {
    const button = make("button", bottom, { type: "button", textContent: text, className: "jupyter-button" });
    button.addEventListener("click", () => ask({ first: model.get("first") + by * model.get("page_size") }));
    return button;
  };
  const back = turn("‹ Previous", -1);
  const place = make("span", bottom);
  const forward = turn("Next ›", 1);

  const drawHead = () => {
    const focused = document.activeElement?.dataset?.sort;
    head.replaceChildren();
    for (const name of model.get("columns")) {
      const sorted = model.get("sort") === name;
      const direction = !sorted ? "none" : model.get("descending") ? "descending" : "ascending";
      const cell = make("th", head, {}, { scope: "col", "aria-sort": direction });
      const sign = { none: "", ascending: " ▲", descending: " ▼" }[direction];
      const button = make("button", cell, { type: "button", textContent: name });
      make("span", button, { textContent: sign }, { "aria-hidden": "true" });
      button.dataset.sort = name;
      button.addEventListener("click", () => ask({ sort: name, descending: sorted && !model.get("descending") }));
      if (focused === name) button.focus();
    }
    make("td", head);
  };

  const drawRow = ([key, ...texts]) => {
    const opened = model.get("opened") === key;
    const row = make("tr", body, { className: model.get("news").includes(key) ? "mciot-new" : "" });
    texts.forEach((text, position) => {
      const cell = make(position ? "td" : "th", row, { textContent: text }, position ? {} : { scope: "row" });
      if (model.get("wide").includes(model.get("columns")[position])) cell.className = "mciot-wide";
    });
    const open = make("button", make("td", row), { type: "button", textContent: opened ? "Close" : "Open" });
    open.className = "jupyter-button";
    open.dataset.key = key;
    open.setAttribute("aria-label", `${open.textContent} ${texts[0]}`);
    open.setAttribute("aria-expanded", String(opened));
    open.addEventListener("click", () => ask({ opened: opened ? "" : key }));
    return open;
  };

  const draw = () => {
    const focused = body.contains(document.activeElement) && document.activeElement.dataset.key;
    drawHead();
    body.replaceChildren();
    for (const row of model.get("rows")) {
      const open = drawRow(row);
      if (focused === open.dataset.key) open.focus(); // rows that come must not throw anybody out
    }
    const [first, found, total] = ["first", "found", "total"].map((name) => model.get(name));
    const last = first + model.get("rows").length;
    back.disabled = first === 0;
    forward.disabled = last >= found;
    bottom.hidden = found <= model.get("page_size");
    place.textContent = `${first + 1} to ${last} of ${found}`;
    const rows = found === total ? `${total} ${total === 1 ? "row" : "rows"}.` : `${found} of ${total} rows.`;
    status.textContent = [model.get("status"), rows].filter(Boolean).join(" ");
  };

  for (const kind of ["keydown", "keypress", "keyup"]) el.addEventListener(kind, (event) => event.stopPropagation());
  const watched = ["rows", "columns", "total", "found", "opened", "status", "sort", "descending", "first", "news"];
  const events = watched.map((name) => `change:${name}`).join(" ");
  model.on(events, draw);
  draw();
  return () => model.off(events, draw);
}

export default { render };
