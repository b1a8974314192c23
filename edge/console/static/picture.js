// A frame with its findings drawn over it. Boxes are in pixels of the frame, so the drawing has the
// frame's own coordinates, and strokes and letters keep their size on the screen.

import { el, fill, svg } from "./dom.js";

const LETTER_PX = 14;

export function picture({ source, alt, defects = [], overlay = true, lazy = false }) {
  const image = el("img", { alt, decoding: "async", loading: lazy ? "lazy" : "eager" });
  const drawing = svg("svg", { class: "findings", "aria-hidden": "true", preserveAspectRatio: "none" });
  const problem = el("p", { class: "quiet missing", hidden: true });
  const frame = el("div", { class: "picture" }, image, drawing, problem);

  function draw() {
    const { naturalWidth: width, naturalHeight: height } = image;
    if (!width || !image.clientWidth) return;
    const unit = width / image.clientWidth;
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    fill(drawing, defects.map((defect) => finding(defect, unit, width, height)));
  }

  image.addEventListener("load", draw);
  image.addEventListener("error", () => {
    image.hidden = true;
    problem.hidden = false;
    problem.textContent = "The picture could not be loaded: it may have given way to newer ones.";
  });
  new ResizeObserver(draw).observe(image);
  image.src = source;
  frame.classList.toggle("bare", !overlay);
  return frame;
}

function finding(defect, unit, width, height) {
  const [x0, y0, x1, y1] = defect.box.map(Number);
  const margin = 3 * unit;
  const box = {
    x: Math.max(0, x0 - margin),
    y: Math.max(0, y0 - margin),
    width: Math.min(width, x1 + margin) - Math.max(0, x0 - margin),
    height: Math.min(height, y1 + margin) - Math.max(0, y0 - margin),
    rx: 2 * unit,
  };
  const letters = LETTER_PX * unit;
  const above = box.y > letters * 1.4;
  const text = `${defect.class} ${Number(defect.score).toFixed(2)}`;
  const right = box.x + text.length * letters * 0.58 > width;
  return svg("g", null,
    svg("rect", { ...box, class: "halo", "stroke-width": 5 * unit }),
    svg("rect", { ...box, class: "box", "stroke-width": 2.2 * unit }),
    svg("text", {
      x: right ? box.x + box.width : box.x,
      y: above ? box.y - letters * 0.45 : box.y + box.height + letters * 1.15,
      "text-anchor": right ? "end" : "start",
      "font-size": letters,
      "stroke-width": 3.6 * unit,
    }, text));
}
