// Making elements. Text from the line or from people only ever becomes text: no markup is parsed here.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.setAttribute("class", value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function el(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Exchange what a node holds. A link that had the focus has it again, or the first one where it is gone. */
export function fill(node, ...children) {
  const held = node.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  node.replaceChildren(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  if (held) {
    const links = [...node.querySelectorAll("a")];
    (links.find((link) => link.getAttribute("href") === held) ?? links[0])?.focus({ preventScroll: true });
  }
  return node;
}

/** A list of terms; pairs without a value are left out. */
export function terms(pairs, name = "terms") {
  return el("dl", { class: name }, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([term, value]) => el("div", null, el("dt", null, term), el("dd", null, value))));
}
