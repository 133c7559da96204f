// The text lives in the <input> alone until it goes to the kernel as a message. It is never set on the model,
// because the Lab may write the model's state into the notebook file.
function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

function makeField(parent, label, id, noteId) {
  const row = make("div", parent, { className: "mciot-secret-row" });
  make("label", row, { htmlFor: id, textContent: label });
  const input = make("input", row, { id, type: "password", autocomplete: "new-password", spellcheck: false });
  input.setAttribute("autocapitalize", "off");
  input.setAttribute("aria-describedby", noteId);
  return input;
}

function render({ model, el }) {
  el.classList.add("mciot-secret");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // else a letter typed here is a command of the Lab
  let parent = el;
  if (model.get("folded")) {
    parent = make("details", el);
    make("summary", parent, { textContent: model.get("folded") });
  }
  if (model.get("hint")) make("p", parent, { textContent: model.get("hint") });
  const id = `mciot-secret-${Math.random().toString(36).slice(2)}`;
  const input = makeField(parent, model.get("label"), id, `${id}-note`);
  const repeated = makeField(parent, "Repeat it", `${id}-repeated`, `${id}-note`);
  const last = () => (model.get("twice") ? repeated : input);
  const button = make("button", parent, { type: "button", className: "jupyter-button", textContent: "Use" });
  button.setAttribute("aria-label", `Use this: ${model.get("label")}`);
  const note = make("div", parent, { id: `${id}-note`, className: "mciot-note" });
  note.setAttribute("role", "status");

  const show = () => {
    const typed = input.value || repeated.value;
    note.textContent = typed ? "Typed, not handed over yet: press Enter." : model.get("status");
  };
  const ask = () => {
    repeated.parentElement.hidden = !model.get("twice");
    last().after(button);
  };
  const send = () => {
    if (!input.value) return;
    model.send({ secret: input.value, repeated: repeated.value });
    input.value = repeated.value = "";
    note.textContent = "Handing over …"; // stays where no kernel answers
    if (model.get("twice")) input.focus(); // where both are typed again if they differ
  };
  el.addEventListener("input", show);
  input.addEventListener("blur", () => model.get("when_left") && send());
  button.addEventListener("click", send);
  for (const kind of ["keydown", "keypress", "keyup"]) {
    el.addEventListener(kind, (event) => {
      event.stopPropagation();
      const field = [input, repeated].includes(event.target);
      if (kind === "keydown" && event.key === "Enter" && !event.isComposing && field) {
        event.preventDefault(); // Shift+Enter too: it would run the cell
        if (event.target === last()) send();
        else repeated.focus();
      }
    });
  }
  model.on("change:status", show);
  model.on("change:twice", ask);
  ask();
  show();
  return () => {
    model.off("change:status", show);
    model.off("change:twice", ask);
  };
}

export default { render };
