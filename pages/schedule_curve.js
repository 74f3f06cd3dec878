// A λ schedule as a curve with points that can be dragged, on a logarithmic scale.
//
// data: epochs, frozen (epochs that cannot be changed), low and high (ends of the λ axis),
//   curve, past, ghost (lists of [epoch, λ]), points (the same, which can be moved), dashed,
//   colour, label.
// trigger "points": all points after one was moved, added or removed.

const MARGIN = { left: 64, right: 14, top: 12, bottom: 38 };
const HEIGHT = 280;
const states = new WeakMap();

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".schedule");
  let state = states.get(parentElement);
  if (!state) {
    state = { held: null };
    states.set(parentElement, state);
    state.watch = new ResizeObserver(() => state.held === null && draw(root, state));
    state.watch.observe(root);
  }
  state.send = (points, focus) => {
    state.focus = focus;
    setTriggerValue("points", points);
  };
  state.next = data;
  if (state.held === null) draw(root, state);
  return () => {
    state.watch.disconnect();
    states.delete(parentElement);
  };
}

function element(name, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

function short(value) {
  const text = Number(value.toPrecision(3));
  return text < 1e-4 ? text.toExponential() : String(text);
}

function draw(root, state) {
  const data = state.next;
  const width = Math.max(root.clientWidth, 240);
  const inner = { w: width - MARGIN.left - MARGIN.right, h: HEIGHT - MARGIN.top - MARGIN.bottom };
  const low = Math.log(data.low);
  const high = Math.log(data.high);
  const scale = {
    x: (epoch) => MARGIN.left + (epoch / data.epochs) * inner.w,
    y: (weight) => MARGIN.top + ((high - Math.log(weight)) / (high - low)) * inner.h,
    epoch: (x) => ((x - MARGIN.left) / inner.w) * data.epochs,
    weight: (y) => Math.exp(high - ((y - MARGIN.top) / inner.h) * (high - low)),
  };
  root.replaceChildren();
  const svg = element("svg", { width, height: HEIGHT, role: "group", "aria-label": data.label }, root);
  const plane = element(
    "rect",
    { x: MARGIN.left, y: MARGIN.top, width: inner.w, height: inner.h, class: "plane" },
    svg,
  );
  axes(svg, data, scale, inner);
  if (data.frozen > 0) {
    const wide = scale.x(data.frozen) - MARGIN.left;
    element(
      "rect",
      { x: MARGIN.left, y: MARGIN.top, width: wide, height: inner.h, class: "frozen" },
      svg,
    );
  }
  const path = (points) => points.map(([e, w]) => `${scale.x(e)},${scale.y(w)}`).join(" ");
  if (data.ghost.length) element("polyline", { points: path(data.ghost), class: "ghost" }, svg);
  const style = `stroke:${data.colour}`;
  if (data.past.length) element("polyline", { points: path(data.past), class: "past", style }, svg);
  const line = element(
    "polyline",
    { points: path(data.curve), class: data.dashed ? "line dashed" : "line", style },
    svg,
  );
  const label = element("text", { class: "readout", x: MARGIN.left + 8, y: MARGIN.top + 16 }, svg);
  const points = data.points.map((point) => [...point]);
  // While a point is held, the curve is what it will be: straight through all points.
  const preview = () => {
    const ends = [[data.frozen, points[0][1]], ...points, [data.epochs, points.at(-1)[1]]];
    line.setAttribute("points", path(ends));
    line.setAttribute("class", "line");
  };
  const tell = (i) => {
    label.textContent = `epoch ${points[i][0].toFixed(1)}, λ ${short(points[i][1])}`;
  };
  const place = (i, epoch, weight) => {
    const gap = data.epochs * 1e-3;
    const from = i > 0 ? points[i - 1][0] + gap : data.frozen;
    const to = i < points.length - 1 ? points[i + 1][0] - gap : data.epochs;
    points[i] = [
      Math.min(Math.max(epoch, from), to),
      Math.min(Math.max(weight, data.low), data.high),
    ];
  };
  const remove = (i) => {
    if (points.length > 1) state.send(points.filter((_, j) => j !== i), Math.max(i - 1, 0));
  };
  const handles = points.map((point, i) => handle(svg, i, points.length));
  const show = (i) => {
    handles[i].setAttribute("transform", `translate(${scale.x(points[i][0])} ${scale.y(points[i][1])})`);
    handles[i].setAttribute("aria-valuetext", `epoch ${points[i][0].toFixed(1)}, λ ${short(points[i][1])}`);
    handles[i].setAttribute("aria-valuenow", points[i][1]);
  };
  const from = (event) => {
    const box = svg.getBoundingClientRect();
    return [scale.epoch(event.clientX - box.left), scale.weight(event.clientY - box.top)];
  };
  handles.forEach((mark, i) => {
    mark.querySelector(".mark").setAttribute("style", `stroke:${data.colour}`);
    show(i);
    mark.onpointerdown = (event) => {
      event.preventDefault();
      mark.setPointerCapture(event.pointerId);
      mark.focus();
      state.held = i;
      state.moved = false;
    };
    mark.onpointermove = (event) => {
      if (state.held !== i) return;
      state.moved = true;
      place(i, ...from(event));
      show(i);
      preview();
      tell(i);
    };
    const release = () => {
      if (state.held !== i) return;
      state.held = null;
      if (state.moved) state.send(points, i);
      else draw(root, state);
    };
    mark.onpointerup = release;
    mark.onpointercancel = release;
    mark.onfocus = () => tell(i);
    mark.onblur = () => (label.textContent = "");
    mark.ondblclick = () => remove(i);
    mark.onkeydown = (event) => {
      const by = event.shiftKey ? 5 : 1;
      const move = {
        ArrowLeft: [-0.01 * by * data.epochs, 1],
        ArrowRight: [0.01 * by * data.epochs, 1],
        ArrowUp: [0, 1.1 ** by],
        ArrowDown: [0, 1.1 ** -by],
      }[event.key];
      if (event.key === "Delete" || event.key === "Backspace") remove(i);
      else if (move) {
        place(i, points[i][0] + move[0], points[i][1] * move[1]);
        show(i);
        preview();
        tell(i);
        clearTimeout(state.soon); // one answer to a run of key strokes
        state.soon = setTimeout(() => state.send(points, i), 400);
      } else return;
      event.preventDefault();
    };
  });
  plane.ondblclick = (event) => {
    const [epoch, weight] = from(event);
    if (!points.length || epoch < data.frozen || points.some(([e]) => Math.abs(e - epoch) < 1e-3 * data.epochs)) return;
    const added = [...points, [epoch, weight]].sort((a, b) => a[0] - b[0]);
    state.send(added, added.findIndex(([e]) => e === epoch));
  };
  if (state.focus !== undefined && handles[state.focus]) handles[state.focus].focus({ preventScroll: true });
  state.focus = undefined;
}

function handle(svg, i, count) {
  const mark = element(
    "g",
    { class: "handle", tabindex: 0, role: "slider", "aria-label": `Point ${i + 1} of ${count}` },
    svg,
  );
  element("circle", { r: 18, class: "reach" }, mark);
  element("circle", { r: 7, class: "mark" }, mark);
  return mark;
}

function axes(svg, data, scale, inner) {
  const bottom = MARGIN.top + inner.h;
  const decades = Math.log10(data.high / data.low);
  for (let k = Math.ceil(Math.log10(data.low) - 1e-9); 10 ** k <= data.high * 1.000001; k++) {
    const y = scale.y(10 ** k);
    element("line", { x1: MARGIN.left, x2: MARGIN.left + inner.w, y1: y, y2: y, class: "grid" }, svg);
    if (decades <= 7 || k % 2 === 0)
      element("text", { x: MARGIN.left - 14, y: y + 5, class: "tick end" }, svg, short(10 ** k));
  }
  const rough = data.epochs / Math.max(inner.w / 90, 2);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max([1, 2, 5, 10].find((n) => n * unit >= rough) * unit, 1);
  for (let epoch = 0; epoch <= data.epochs; epoch += step)
    element("text", { x: scale.x(epoch), y: bottom + 18, class: "tick middle" }, svg, epoch);
  element("line", { x1: MARGIN.left, x2: MARGIN.left + inner.w, y1: bottom, y2: bottom, class: "axis" }, svg);
  element("text", { x: MARGIN.left + inner.w / 2, y: bottom + 35, class: "tick middle" }, svg, "epochs of the gate stage");
  element("text", { x: 4, y: MARGIN.top + 10, class: "tick" }, svg, "λ");
}
