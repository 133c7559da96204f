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
  const rating = make("div", parent, { id: `${id}-rating`, className: "mciot-note" });
  const note = make("div", parent, { id: `${id}-note`, className: "mciot-note" });
  for (const line of [rating, note]) line.setAttribute("role", "status");

  const rate = () => {
    const isNew = model.get("twice") && model.get("shortest");
    const words = isNew && input.value ? strength(input.value, model.get("shortest")) : "";
    if (rating.textContent !== words) rating.textContent = words; // else it would be spoken at each key
  };
  const show = () => {
    const typed = input.value || repeated.value;
    rate();
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
    rate();
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
