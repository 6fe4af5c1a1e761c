"use strict";
// Tables sort by the column whose heading is pressed; without this script they are read as they stand.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    if (heading.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, headings, column));
  });
}

function sort(table, headings, column) {
  const heading = headings[column];
  const numbers = heading.classList.contains("figure");
  const before = heading.getAttribute("aria-sort");
  // Figures are first asked for by the largest.
  const first = numbers ? "descending" : "ascending";
  const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const value = (row) => {
    const cell = row.cells[column];
    return numbers ? (cell.dataset.sort === undefined ? null : Number(cell.dataset.sort)) : cell.textContent;
  };
  const compare = (a, b) => {
    const [left, right] = [value(a), value(b)];
    // What was not measured stands last, whichever way.
    if (left === null || right === null) return (left === null) - (right === null);
    return sign * (numbers ? left - right : left.localeCompare(right, "en", { numeric: true }));
  };
  body.append(...[...body.rows].sort(compare));
}

// On paper nothing can be unfolded.
const folded = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    folded.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of folded.splice(0)) details.open = false;
});
