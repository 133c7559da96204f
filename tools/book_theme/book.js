// From a folder, a page may not read others: the search then lists what it finds without an excerpt.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// One switch on each page folds or opens all of its code; each cell can be folded or opened by itself, too.
addEventListener("DOMContentLoaded", () => {
  const inputs = document.querySelectorAll("div.cell_input");
  if (!inputs.length) return;
  const cells = [...inputs].map((input) => {
    const cell = document.createElement("details");
    cell.className = "book-code";
    input.replaceWith(cell);
    cell.innerHTML = "<summary>Code</summary>";
    cell.append(input);
    return cell;
  });
  const button = document.createElement("button");
  button.className = "book-switch";
  button.type = "button";
  const keep = (folded) => { try { localStorage.setItem("book-code", folded); } catch {} };
  const kept = () => { try { return localStorage.getItem("book-code") === "true"; } catch { return false; } };
  const fold = (folded) => {
    cells.forEach((cell) => { cell.open = !folded; });
    button.textContent = folded ? "Open all code" : "Fold all code";
  };
  button.addEventListener("click", () => { const folded = cells.some((cell) => cell.open); keep(folded); fold(folded); });
  cells.forEach((cell) => cell.addEventListener("toggle", () => {
    button.textContent = cells.some((one) => one.open) ? "Fold all code" : "Open all code";
  }));
  fold(kept());
  document.querySelector("article h1").after(button);
});

// What is wider than the page is scrolled with the keyboard, too.
const reach = () => document.querySelectorAll("pre, .table-wrapper, .cell_output").forEach((box) => {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
});
addEventListener("load", reach);
addEventListener("resize", reach);
