// Charts as SVG: bars, scatters with a front, lines. Everything in them has a name, and points are links.
const SPACE = "http://www.w3.org/2000/svg";

/** An SVG element with attributes and children; strings become text. */
export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

const title = (text) => svg("title", {}, text);

/** A bar of a share, in a cell of a table. */
export function bar(share, text, kind) {
  const width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return svg(
    "svg",
    { class: "bar", role: "img", "aria-label": text, preserveAspectRatio: "none" },
    title(text),
    svg("rect", { class: "back", width: "100%", height: "100%", rx: 3 }),
    svg("rect", { class: kind, width, height: "100%", rx: 3 }),
  );
}

/** Round numbers that divide a range. */
export function ticks(low, high, about = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step)
    found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

/** A chart that is drawn again for the width that it has. */
function fitted(draw) {
  const box = document.createElement("div");
  let last = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.max(260, Math.round(entry.contentRect.width));
    if (width === last) return;
    last = width;
    box.replaceChildren(draw(width));
  }).observe(box);
  return box;
}

function spread(values, { zero }) {
  const low = zero ? Math.min(0, ...values) : Math.min(...values);
  const high = zero ? Math.max(0, ...values) : Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [zero && low === 0 ? 0 : low - room, high + room];
}

/** Zeros at the end say nothing on an axis. */
const short = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

function frame({ x, y, width, height, xs, ys, xText, yText, xName, yName }) {
  const [left, bottom] = [62, height - 40];
  const parts = [svg("line", { class: "axis", x1: left, x2: width - 12, y1: bottom, y2: bottom })];
  for (const at of ticks(ys[0], ys[1])) {
    parts.push(
      svg("line", { class: "axis", x1: left, x2: width - 12, y1: y(at), y2: y(at), "stroke-dasharray": "2 4" }),
      svg("text", { x: left - 8, y: y(at) + 4, "text-anchor": "end" }, short(yText(at))),
    );
  }
  for (const at of ticks(xs[0], xs[1], Math.max(2, Math.floor(width / 120))))
    parts.push(svg("text", { x: x(at), y: bottom + 17, "text-anchor": "middle" }, short(xText(at))));
  parts.push(svg("text", { x: width - 12, y: height - 4, "text-anchor": "end" }, xName), svg("text", { x: 2, y: 11 }, yName));
  return parts;
}

/**
 * Points by two numbers. A point is `{x, y, name, text, href, front}`; those of the front are filled and joined.
 */
export function scatter(points, options) {
  return fitted((width) => drawScatter(points, { ...options, width, height: width < 500 ? 300 : 380 }));
}

function drawScatter(points, { label, xName, yName, xText, yText, zeroY = false, width, height }) {
  const xs = spread(
    points.map((p) => p.x),
    { zero: false },
  );
  const ys = spread(
    points.map((p) => p.y),
    { zero: zeroY },
  );
  const x = (v) => 62 + ((v - xs[0]) / (xs[1] - xs[0])) * (width - 62 - 24);
  const y = (v) => height - 40 - ((v - ys[0]) / (ys[1] - ys[0])) * (height - 40 - 26);
  const front = points.filter((p) => p.front).sort((a, b) => a.x - b.x);
  const taken = [];
  const dots = [...points]
    .sort((a, b) => a.x - b.x)
    .map((p) => {
      const [cx, cy] = [x(p.x), y(p.y)];
      const end = cx > width - 130;
      const long = p.name.length * 6.6;
      const box = [end ? cx - 9 - long : cx + 9, cy - 18, long, 14];
      const free = !taken.some(
        (other) => box[0] < other[0] + other[2] && other[0] < box[0] + box[2] && Math.abs(box[1] - other[1]) < 14,
      );
      if (free) taken.push(box);
      const tag =
        free &&
        svg(
          "text",
          { class: "label", x: end ? cx - 9 : cx + 9, y: cy - 7, "text-anchor": end ? "end" : "start", "aria-hidden": "true" },
          p.name,
        );
      const text = `${p.name}: ${p.text}${p.front ? ", on the front" : ""}`;
      return svg(
        "a",
        { href: p.href, "aria-label": text, tabindex: 0 },
        title(text),
        svg("circle", { cx, cy, r: 12, fill: "transparent" }),
        svg("circle", { class: p.front ? "dot on" : "dot", cx, cy, r: 5.5 }),
        tag,
      );
    });
  return svg(
    "svg",
    { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label },
    frame({ x, y, width, height, xs, ys, xText, yText, xName, yName }),
    front.length > 1 && svg("polyline", { class: "front", points: front.map((p) => `${x(p.x)},${y(p.y)}`).join(" ") }),
    dots,
  );
}

/** A line of points with a band around it, and marks on it. */
export function curve(points, options) {
  return fitted((width) => drawCurve(points, { ...options, width, height: 260 }));
}

function drawCurve(points, { label, xName, yName, xText, yText, marks = [], width, height }) {
  const xs = spread([...points.map((p) => p.x), ...marks.map((p) => p.x)], { zero: false });
  const ys = spread([...points.flatMap((p) => [p.y, p.high ?? p.y]), ...marks.map((p) => p.y)], { zero: true });
  const x = (v) => 62 + ((v - xs[0]) / (xs[1] - xs[0])) * (width - 62 - 24);
  const y = (v) => height - 40 - ((v - ys[0]) / (ys[1] - ys[0])) * (height - 40 - 26);
  return svg(
    "svg",
    { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    frame({ x, y, width, height, xs, ys, xText, yText, xName, yName }),
    svg("polyline", { class: "front", points: points.map((p) => `${x(p.x)},${y(p.y)}`).join(" ") }),
    points.map((p) => svg("circle", { class: "dot", cx: x(p.x), cy: y(p.y), r: 3 }, title(p.text))),
    marks.map((p) => svg("circle", { class: "dot on", cx: x(p.x), cy: y(p.y), r: 5.5 }, title(p.text))),
  );
}

/** A bar for each item, side by side; `bars`: `{value, text, soft}`. */
export function columns(bars, options) {
  return fitted((width) => drawColumns(bars, { ...options, width, height: 190 }));
}

function drawColumns(bars, { label, yName, yText, width, height }) {
  const most = Math.max(...bars.map((one) => one.value), Number.MIN_VALUE);
  const each = (width - 62 - 12) / bars.length;
  const y = (v) => height - 22 - (v / most) * (height - 22 - 24);
  const every = Math.ceil(bars.length / 12);
  return svg(
    "svg",
    { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    ticks(0, most, 4).map((at) => [
      svg("line", { class: "axis", x1: 62, x2: width - 12, y1: y(at), y2: y(at), "stroke-dasharray": at ? "2 4" : null }),
      svg("text", { x: 54, y: y(at) + 4, "text-anchor": "end" }, yText(at)),
    ]),
    svg("text", { x: 2, y: 11 }, yName),
    bars.map((one, at) =>
      svg(
        "rect",
        {
          class: one.soft ? "column soft" : "column",
          x: 62 + at * each + each * 0.08,
          width: Math.max(each * 0.84, 0.6),
          y: y(one.value),
          height: Math.max(height - 22 - y(one.value), 0.5),
        },
        title(one.text),
      ),
    ),
    bars.map(
      (one, at) =>
        at % every === 0 &&
        one.name !== undefined &&
        svg("text", { x: 62 + (at + 0.5) * each, y: height - 5, "text-anchor": "middle" }, one.name),
    ),
  );
}
