// The graph on a canvas: draws a scene that Python has laid out, and tells Python what was clicked.
//
// Python owns what is shown (open containers, selection, search); the place and zoom of the view live here and stay over
// reruns. `Pen`s draw the same picture on the canvas and into SVG.

const VIEWS = new WeakMap();
const LABELS_FROM = 0.42; // zoom from which text is legible
const DETAIL_FROM = 0.12; // zoom below which boxes are bare rectangles
const NARROWEST = 0.02;
const WIDEST = 3;
const FADED = 0.2;

export default function (component) {
  const { data, parentElement, setStateValue, setTriggerValue } = component;
  let view = VIEWS.get(parentElement);
  if (!view) {
    view = new View(parentElement);
    VIEWS.set(parentElement, view);
  }
  view.tell = setStateValue;
  view.ask = setTriggerValue;
  view.update(data);
  return () => {
    view.close();
    VIEWS.delete(parentElement);
  };
}

class CanvasPen {
  constructor(context) {
    this.g = context;
  }
  alpha(value) {
    this.g.globalAlpha = value;
  }
  box(x, y, w, h, { fill, stroke, dash, width = 1, radius = 4 }) {
    const g = this.g;
    g.beginPath();
    if (radius) g.roundRect(x, y, w, h, radius);
    else g.rect(x, y, w, h);
    if (fill) {
      g.fillStyle = fill;
      g.fill();
    }
    if (stroke) {
      g.setLineDash(dash ?? []);
      g.lineWidth = width;
      g.strokeStyle = stroke;
      g.stroke();
    }
  }
  text(x, y, text, { size, fill, bold, align = "left", room = Infinity }) {
    const g = this.g;
    g.font = font(size, bold);
    g.fillStyle = fill;
    g.textAlign = align;
    g.textBaseline = "middle";
    g.fillText(shorten(g, text, room), x, y);
  }
  lines(path, { stroke, width, dash }) {
    const g = this.g;
    g.setLineDash(dash ?? []);
    g.lineWidth = width;
    g.strokeStyle = stroke;
    g.stroke(new Path2D(path));
  }
  shapes(path, fill) {
    this.g.fillStyle = fill;
    this.g.fill(new Path2D(path));
  }
}

class SvgPen {
  constructor(measure) {
    this.g = measure;
    this.parts = [];
    this.opacity = 1;
  }
  alpha(value) {
    this.opacity = value;
  }
  add(tag, attributes, text) {
    const all = this.opacity < 1 ? { ...attributes, opacity: this.opacity } : attributes;
    const list = Object.entries(all).filter(([, v]) => v !== undefined && v !== null);
    const opening = `<${tag} ${list.map(([k, v]) => `${k}="${escape(String(v))}"`).join(" ")}`;
    this.parts.push(text === undefined ? `${opening}/>` : `${opening}>${escape(text)}</${tag}>`);
  }
  box(x, y, w, h, { fill, stroke, dash, width = 1, radius = 4 }) {
    this.add("rect", { x, y, width: w, height: h, rx: radius || undefined, fill: fill ?? "none", stroke,
      "stroke-width": stroke ? width : undefined, "stroke-dasharray": dash?.join(" ") });
  }
  text(x, y, text, { size, fill, bold, align = "left", room = Infinity }) {
    this.g.font = font(size, bold);
    const anchor = { left: undefined, center: "middle", right: "end" }[align];
    this.add("text", { x, y, "font-size": size, "font-weight": bold ? 600 : undefined, fill, "text-anchor": anchor,
      "dominant-baseline": "central" }, shorten(this.g, text, room));
  }
  lines(path, { stroke, width, dash }) {
    if (path) this.add("path", { d: path, fill: "none", stroke, "stroke-width": width, "stroke-dasharray": dash?.join(" ") });
  }
  shapes(path, fill) {
    if (path) this.add("path", { d: path, fill });
  }
}

class View {
  constructor(root) {
    this.root = root;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.build();
    this.listen();
  }

  // ---- the page elements -------------------------------------------------------------------------------------------

  build() {
    const host = this.root.querySelector(".zig") ?? this.root.appendChild(element("div", "zig"));
    host.replaceChildren();
    this.host = host;
    this.bar = host.appendChild(element("div", "bar"));
    this.query = this.bar.appendChild(element("input", ""));
    Object.assign(this.query, { type: "search", placeholder: "Search name, operator, tensor, g7" });
    this.query.setAttribute("aria-label", "Search the graph");
    this.found = this.bar.appendChild(element("span", "found"));
    this.bar.appendChild(element("span", "space"));
    const button = (text, title, action) => {
      const made = this.bar.appendChild(element("button", "", text));
      made.type = "button";
      made.title = title;
      made.setAttribute("aria-label", title);
      made.onclick = action;
      return made;
    };
    button("−", "Zoom out (-)", () => this.zoomBy(1 / 1.3));
    button("+", "Zoom in (+)", () => this.zoomBy(1.3));
    button("Fit", "Show everything (f)", () => this.fit());
    button("Open all", "Open all modules", () => this.ask("command", "open"));
    button("Close all", "Close all modules", () => this.ask("command", "close"));
    button("SVG", "Save the whole picture as SVG", () => this.saveSvg());
    button("PNG", "Save the whole picture as PNG", () => this.savePng());
    this.stage = host.appendChild(element("div", "stage"));
    this.canvas = this.stage.appendChild(element("canvas", "main"));
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label",
      "Graph. Arrows follow edges, Enter opens or closes a module, slash searches, f fits, plus and minus zoom.");
    this.canvas.view = this;
    this.map = this.stage.appendChild(element("canvas", "map"));
    this.tip = this.stage.appendChild(element("div", "tip"));
    this.hits = this.stage.appendChild(element("div", "hits"));
    this.legend = host.appendChild(element("div", "legend"));
    this.live = host.appendChild(element("div", "live"));
    this.live.setAttribute("aria-live", "polite");
  }

  listen() {
    const c = this.canvas;
    c.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    c.addEventListener("pointerdown", (event) => this.press(event));
    c.addEventListener("pointermove", (event) => this.move(event));
    c.addEventListener("pointerup", (event) => this.release(event));
    c.addEventListener("pointerleave", () => this.hover(-1));
    c.addEventListener("dblclick", (event) => this.toggle(this.at(event)));
    c.addEventListener("keydown", (event) => this.key(event));
    this.map.addEventListener("pointerdown", (event) => this.jump(event));
    this.map.addEventListener("pointermove", (event) => event.buttons && this.jump(event));
    this.query.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.tell("query", this.query.value), 200);
    });
    this.query.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") this.nextHit();
      if (event.key === "Escape") this.clearSearch();
    });
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.stage);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.recolour = () => setTimeout(() => this.redraw(), 50);
    this.scheme.addEventListener("change", this.recolour);
    document.fonts.ready.then(() => this.s && this.redraw());
  }

  close() {
    this.watch.disconnect();
    this.scheme.removeEventListener("change", this.recolour);
  }

  // ---- data from Python --------------------------------------------------------------------------------------------

  update(data) {
    const first = !this.data;
    const changed = first || data.sig !== this.data.sig;
    this.data = data;
    if (this.host.style.height !== `${data.height}px`) this.host.style.height = `${data.height}px`;
    if (changed) this.take(data.scene);
    if (this.pending === undefined || this.pending === data.selected) {
      this.pending = undefined;
      this.selected = this.number.get(data.selected) ?? -1;
    }
    this.marked = new Set(data.hits.boxes);
    this.showHits(data.hits, data.query);
    this.showLegend();
    this.resize();
    if (first) this.begin();
    else if (changed) this.keepPlace();
    if (data.centre !== this.centred) {
      if (this.centred !== undefined || data.selected) this.centre(this.selected);
      this.centred = data.centre;
    }
    this.redraw();
  }

  take(scene) {
    this.s = scene;
    this.number = new Map(scene.key.map((key, index) => [key, index]));
    this.next = gather(scene.from, scene.to);
    this.before = gather(scene.to, scene.from);
    this.out = gather(scene.source, scene.u.map((_, e) => e)); // arrows by the box that they come from
    this.arriving = new Map(); // arrows by where they end and the box that they come from
    scene.v.forEach((v, e) => put(this.arriving, `${v}/${scene.source[e]}`, e));
    this.paths = scene.u.map((_, e) => curve(scene, e));
    this.reach = scene.u.map((_, e) => {
      const xs = [scene.x0[e], scene.x1[e], scene.lane[e] ?? scene.x0[e]];
      return [Math.min(...xs), Math.min(scene.y0[e], scene.y1[e]), Math.max(...xs), Math.max(scene.y0[e], scene.y1[e])];
    });
    this.hovered = -1;
  }

  begin() {
    // Start where reading starts: at the first box, legible.
    const { s } = this;
    const { width } = this.stage.getBoundingClientRect();
    this.scale = Math.min(1, Math.max(0.7, (width - 40) / s.size[0]));
    const top = s.y.indexOf(Math.min(...s.y));
    const middle = s.x[top] + s.w[top] / 2;
    this.x = width / 2 - middle * this.scale;
    this.y = 16 - s.y[top] * this.scale;
  }

  keepPlace() {
    const index = this.anchor && this.number.get(this.anchor.key);
    if (index === undefined || index === null) return this.clampView();
    this.x = this.anchor.x - (this.s.x[index] + this.s.w[index] / 2) * this.scale;
    this.y = this.anchor.y - this.s.y[index] * this.scale;
    this.anchor = undefined;
  }

  clampView() {
    const { width, height } = this.stage.getBoundingClientRect();
    const [w, h] = this.s.size;
    this.x = Math.min(width - 60, Math.max(60 - w * this.scale, this.x));
    this.y = Math.min(height - 60, Math.max(60 - h * this.scale, this.y));
  }

  showHits(hits, query) {
    if (document.activeElement !== this.host && this.root.activeElement !== this.query) this.query.value = query;
    this.found.textContent = query ? (hits.total ? `${hits.total} found` : "nothing found") : "";
    this.hits.replaceChildren();
    for (const [key, title, detail] of hits.list) {
      const row = this.hits.appendChild(element("button", ""));
      row.type = "button";
      row.append(element("b", "", title), " ", element("span", "quiet", detail));
      row.onclick = () => {
        this.hits.style.display = "none";
        this.ask("reveal", key);
        this.canvas.focus();
      };
    }
    if (hits.total > hits.list.length && hits.list.length) {
      this.hits.appendChild(element("div", "quiet", `… and ${hits.total - hits.list.length} more`)).style.padding = "5px 9px";
    }
    const open = this.root.activeElement === this.query && hits.list.length > 0;
    this.hits.style.display = open ? "block" : "none";
    this.turn = -1;
  }

  nextHit() {
    const list = this.data.hits.list;
    if (!list.length) return;
    this.turn = (this.turn + 1) % list.length;
    this.ask("reveal", list[this.turn][0]);
  }

  clearSearch() {
    this.query.value = "";
    this.hits.style.display = "none";
    this.tell("query", "");
    this.canvas.focus();
  }

  showLegend() {
    const { overlay } = this.data;
    const { back } = this.theme();
    const entries = overlay
      ? [["ramp", `${overlay.name}: 0 to ${overlay.most}`]]
      : [["write", "fill: the group it writes"], ["read", "stripe: groups it reads"]];
    entries.push(["fixed", "dashed: fixed"], ["closed", "a closed module: double-click opens it"]);
    this.legend.replaceChildren(
      ...entries.map(([name, text]) => {
        const line = element("span", "");
        const mark = line.appendChild(element("i", name));
        if (name === "ramp") mark.style.background = `linear-gradient(to right, ${ramp(0, back)}, ${ramp(1, back)})`;
        line.append(text);
        return line;
      }),
    );
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  resize() {
    const { width, height } = this.stage.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    if (!width || !height) return;
    const w = Math.round(width * ratio);
    const h = Math.round(height * ratio);
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
      this.redraw();
    }
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      const start = performance.now();
      const theme = this.theme();
      this.draw(theme);
      const { sig, overlay, focus } = this.data;
      const shown = [sig, overlay?.name, focus, theme.back, window.devicePixelRatio].join("|");
      if (shown !== this.mapped) this.drawMap(theme);
      this.mapped = shown;
      this.frameMap(theme);
      Object.assign(this.canvas.dataset, {
        redraw: (performance.now() - start).toFixed(2), zoom: this.scale.toFixed(3), boxes: this.s.key.length,
        selected: this.s.key[this.selected] ?? "", x: this.x.toFixed(1), y: this.y.toFixed(1), ready: "yes",
      });
    });
  }

  theme() {
    const style = getComputedStyle(this.host);
    FAMILY = style.fontFamily || FAMILY;
    const get = (name, other) => style.getPropertyValue(name).trim() || other;
    return {
      text: get("--st-text-color", "#31333f"),
      back: get("--st-background-color", "#ffffff"),
      second: get("--st-secondary-background-color", "#f0f2f6"),
      primary: get("--st-primary-color", "#ff4b4b"),
      line: get("--st-border-color", "#888888"),
    };
  }

  draw(theme) {
    const g = this.canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.canvas;
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, width, height);
    g.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
    const area = [-this.x / this.scale, -this.y / this.scale,
      (width / ratio - this.x) / this.scale, (height / ratio - this.y) / this.scale];
    this.paint(new CanvasPen(g), theme, area, this.scale);
  }

  paint(pen, theme, area, scale) {
    const { s } = this;
    const seen = [];
    for (let i = 0; i < s.key.length; i++) {
      if (s.y[i] <= area[3] && s.y[i] + s.h[i] >= area[1] && s.x[i] <= area[2] && s.x[i] + s.w[i] >= area[0]) seen.push(i);
    }
    const frames = seen.filter((i) => s.kind[i] === "frame");
    for (const i of frames) this.paintFrame(pen, theme, i);
    this.paintArrows(pen, theme, area, scale);
    if (scale >= LABELS_FROM) for (const i of frames) this.paintTitle(pen, theme, i);
    for (const i of seen) if (s.kind[i] !== "frame") this.paintBox(pen, theme, i, scale);
  }

  paintFrame(pen, theme, i) {
    const { s } = this;
    pen.alpha(1);
    const chosen = i === this.selected;
    pen.box(s.x[i], s.y[i], s.w[i], s.h[i], { fill: mix(theme.text, theme.back, 0.04), radius: 8,
      stroke: chosen ? theme.primary : mix(theme.text, theme.back, 0.35), width: chosen ? 3 : 1 });
    if (this.marked.has(i)) this.ring(pen, theme, i);
  }

  paintTitle(pen, theme, i) {
    const { s } = this;
    const name = `▾ ${s.title[i]}${s.sub[i] ? ` ${s.sub[i]}` : ""}`;
    const room = s.w[i] - 18;
    // A ground of its own, since arrows enter through the title.
    pen.box(s.x[i] + 5, s.y[i] + 4, Math.min(room, measure(pen.g, name, 12, true)) + 8, 18, { fill: mix(theme.text, theme.back, 0.04), radius: 3 });
    pen.text(s.x[i] + 9, s.y[i] + 13, name, { size: 12, bold: true, fill: theme.text, room });
  }

  paintArrows(pen, theme, area, scale) {
    const { s, reach } = this;
    const lit = this.lit();
    const plain = [], back = [], bright = [], heads = [], brightHeads = [], bundles = [];
    for (let e = 0; e < reach.length; e++) {
      const [x0, y0, x1, y1] = reach[e];
      if (y0 > area[3] || y1 < area[1] || x0 > area[2] || x1 < area[0]) continue;
      const special = lit.has(e);
      (special ? bright : s.back[e] ? back : plain).push(this.paths[e]);
      if (scale > 0.3 && s.v[e] < s.key.length && s.kind[s.v[e]] !== "frame" && !s.back[e]) {
        (special ? brightHeads : heads).push(`M${s.x1[e]} ${s.y1[e]}l-4 -7h8z`);
      }
      if (s.bundle[e] > 1 && s.lane[e] !== null) bundles.push(e);
    }
    const colour = mix(theme.text, theme.back, 0.45);
    const faint = lit.size > 0 || this.focus().size > 0 ? 0.35 : 1;
    pen.alpha(faint);
    pen.lines(plain.join(""), { stroke: colour, width: Math.max(1.1, 0.6 / scale) });
    pen.lines(back.join(""), { stroke: colour, width: Math.max(1.1, 0.6 / scale), dash: [5, 4] });
    pen.shapes(heads.join(""), colour);
    pen.alpha(1);
    pen.lines(bright.join(""), { stroke: theme.primary, width: Math.max(2, 1 / scale) });
    pen.shapes(brightHeads.join(""), theme.primary);
    if (scale >= LABELS_FROM) this.paintBundles(pen, theme, bundles, area);
  }

  paintBundles(pen, theme, bundles, area) {
    const { s } = this;
    const told = new Set();
    for (const e of bundles) {
      const key = `${Math.round(s.lane[e])}/${s.bundle[e]}`;
      if (told.has(key)) continue;
      told.add(key);
      // In the middle of what is to be seen of the lane.
      const y = (Math.max(s.top[e], area[1]) + Math.min(s.bottom[e], area[3])) / 2;
      pen.box(s.lane[e] - 16, y - 9, 32, 18, { fill: theme.back, stroke: theme.text, radius: 9 });
      pen.text(s.lane[e], y, `×${s.bundle[e]}`, { size: 11, fill: theme.text, align: "center", room: 30 });
    }
  }

  paintBox(pen, theme, i, scale) {
    const { s } = this;
    const x = s.x[i], y = s.y[i], w = s.w[i], h = s.h[i];
    const fill = this.fill(i, theme);
    const plainer = scale < DETAIL_FROM;
    pen.alpha(this.isFaded(i) ? FADED : 1);
    if (plainer) {
      pen.box(x, y, w, h, { fill, radius: 0 });
    } else {
      const outline = mix(theme.text, theme.back, s.kind[i] === "closed" ? 0.9 : 0.6);
      const terminal = s.kind[i] === "input" || s.kind[i] === "output";
      const radius = terminal ? h / 2 : 4;
      pen.box(x, y, w, h, { fill, stroke: outline, dash: s.fixed[i] ? [5, 3] : undefined, radius, width: s.fixed[i] ? 1.6 : 1 });
      if (s.kind[i] === "closed") pen.box(x + 3, y + 3, w - 6, h - 6, { stroke: outline, radius: 3 });
      this.paintGroups(pen, i);
      if (scale >= LABELS_FROM) this.paintText(pen, theme, i, fill);
    }
    pen.alpha(1);
    if (this.marked.has(i)) this.ring(pen, theme, i);
    if (i === this.selected) pen.box(x - 3, y - 3, w + 6, h + 6, { stroke: theme.primary, width: Math.max(3, 1.5 / scale), radius: 7 });
    else if (i === this.hovered) pen.box(x - 2, y - 2, w + 4, h + 4, { stroke: theme.text, width: 1.5, radius: 6 });
  }

  ring(pen, theme, i) {
    const { s } = this;
    const pad = 5;
    pen.box(s.x[i] - pad, s.y[i] - pad, s.w[i] + 2 * pad, s.h[i] + 2 * pad,
      { stroke: theme.text, width: Math.max(3, 2 / this.scale), dash: [2, 3], radius: 8 });
  }

  // The stripe of groups that are read, at the top; for a closed module also the bar of groups that are written.
  paintGroups(pen, i) {
    const { s } = this;
    if (this.data.overlay) return;
    const inset = s.kind[i] === "closed" ? 4 : 1;
    this.segments(pen, s.reads[i], s.x[i] + inset, s.y[i] + inset, s.w[i] - 2 * inset, 5);
    if (s.kind[i] === "closed") this.segments(pen, s.writes[i], s.x[i] + inset, s.y[i] + s.h[i] - inset - 8, s.w[i] - 2 * inset, 8);
  }

  segments(pen, groups, x, y, w, h) {
    const total = groups.reduce((sum, [, count]) => sum + count, 0);
    for (const [group, count] of groups.slice(0, 12)) {
      const part = (w * count) / total;
      pen.box(x, y, part, h, { fill: this.hue(group), radius: 0 });
      x += part;
    }
  }

  paintText(pen, theme, i, fill) {
    const { s } = this;
    const ink = fill === theme.back || fill === theme.second ? theme.text : inkOn(fill);
    const x = s.x[i], y = s.y[i], w = s.w[i], h = s.h[i];
    if (s.kind[i] === "closed") {
      const label = this.label(i);
      pen.text(x + 10, y + 17, `▸ ${s.title[i]}`, { size: 13, bold: true, fill: ink, room: w - 24 - (s.sub[i] ? 36 : 0) });
      if (s.sub[i]) pen.text(x + w - 10, y + 17, s.sub[i], { size: 12, bold: true, fill: ink, align: "right" });
      pen.text(x + 24, y + 31, `${s.nodes[i]} nodes${label ? ` · ${label}` : ""}`, { size: 11, fill: ink, room: w - 34 });
    } else if (h < 40) {
      pen.text(x + w / 2, y + h / 2 + (s.reads[i].length && !this.data.overlay ? 2 : 0), s.title[i], { size: 12, fill: ink, align: "center", room: w - 14 });
    } else {
      const label = this.label(i);
      const room = label ? measure(pen.g, label, 11) + 10 : 0;
      const title = Math.min(w - 40, measure(pen.g, s.title[i], 13, true));
      pen.text(x + 9, y + 18, s.title[i], { size: 13, bold: true, fill: ink, room: w - 40 });
      pen.text(x + w - 8, y + 18, dims(s.shape[i]), { size: 11, fill: ink, align: "right", room: w - title - 25 });
      pen.text(x + 9, y + 35, s.sub[i], { size: 11, fill: ink, room: w - 22 - room });
      pen.text(x + w - 8, y + 35, label, { size: 11, bold: true, fill: ink, align: "right" });
    }
  }

  label(i) {
    const { s, data } = this;
    if (data.overlay) return data.overlay.labels[i] ?? "";
    const groups = s.writes[i].map(([group]) => `g${group}`);
    if (groups.length === 1) return `${groups[0]} ·${data.groups.size[s.writes[i][0][0]]}`;
    if (groups.length) return groups.length > 3 ? `${groups.slice(0, 3).join(" ")} +${groups.length - 3}` : groups.join(" ");
    return s.fixed[i] ? "fixed" : "";
  }

  fill(i, theme) {
    const { s, data } = this;
    if (data.overlay) {
      const share = data.overlay.shares[i];
      return share === null || share === undefined ? theme.back : ramp(share, theme.back);
    }
    if (s.kind[i] === "closed" || !s.writes[i].length) return s.kind[i] === "leaf" ? theme.back : theme.second;
    return this.hue(s.writes[i][0][0]);
  }

  hue(group) {
    return this.data.palette[this.data.groups.hue[group]];
  }

  focus() {
    return new Set(this.data.focus);
  }

  isFaded(i) {
    if (!this.data.focus.length) return false;
    const { s } = this;
    const wanted = this.data.focus;
    return !wanted.some((group) => s.writes[i].some(([g]) => g === group) || s.reads[i].some(([g]) => g === group));
  }

  // The arrows that belong to the selected box: all from it, and those to it back to where they come from.
  lit() {
    const box = this.selected;
    if (box < 0) return new Set();
    if (this.litOf === box && this.litIn === this.s) return this.litArrows;
    const arrows = new Set(this.out.get(box) ?? []);
    for (const source of this.before.get(box) ?? []) {
      const queue = [`${box}/${source}`];
      while (queue.length) {
        for (const e of this.arriving.get(queue.pop()) ?? []) {
          arrows.add(e);
          if (this.s.u[e] >= this.s.key.length) queue.push(`${this.s.u[e]}/${source}`);
        }
      }
    }
    Object.assign(this, { litOf: box, litIn: this.s, litArrows: arrows });
    return arrows;
  }

  drawMap(theme) {
    const { s } = this;
    const [w, h] = s.size;
    const scale = Math.min(150 / w, 170 / h);
    this.mapScale = Math.max(scale, Math.min(24 / w, 170 / h));
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.max(24, w * scale), Math.max(24, h * scale)];
    this.mapScales = [wide / w, high / h];
    this.map.width = wide * ratio;
    this.map.height = high * ratio;
    Object.assign(this.map.style, { width: `${wide}px`, height: `${high}px` });
    this.mapImage = new OffscreenCanvas(this.map.width, this.map.height);
    const g = this.mapImage.getContext("2d");
    g.scale((ratio * wide) / w, (ratio * high) / h);
    const none = mix(theme.text, theme.back, 0.3);
    for (let i = 0; i < s.key.length; i++) {
      if (s.kind[i] === "frame") continue;
      const fill = s.kind[i] === "closed" && s.writes[i].length && !this.data.overlay ? this.hue(s.writes[i][0][0]) : this.fill(i, theme);
      g.globalAlpha = this.isFaded(i) ? FADED : 1;
      g.fillStyle = fill === theme.back || fill === theme.second ? none : fill;
      g.fillRect(s.x[i], s.y[i], s.w[i], s.h[i]);
    }
  }

  frameMap(theme) {
    const g = this.map.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.stage.getBoundingClientRect();
    const [a, b] = this.mapScales;
    g.clearRect(0, 0, this.map.width, this.map.height);
    if (this.mapImage.width && this.mapImage.height) g.drawImage(this.mapImage, 0, 0);
    g.lineWidth = 1.5 * ratio;
    g.strokeStyle = theme.primary;
    g.strokeRect((-this.x / this.scale) * a * ratio, (-this.y / this.scale) * b * ratio,
      (width / this.scale) * a * ratio, Math.max(3, (height / this.scale) * b * ratio));
  }

  // ---- moving about ------------------------------------------------------------------------------------------------

  zoomTo(scale, px, py) {
    const next = Math.min(WIDEST, Math.max(NARROWEST, scale));
    this.x = px - ((px - this.x) * next) / this.scale;
    this.y = py - ((py - this.y) * next) / this.scale;
    this.scale = next;
    this.redraw();
  }

  zoomBy(factor) {
    const { width, height } = this.stage.getBoundingClientRect();
    this.zoomTo(this.scale * factor, width / 2, height / 2);
  }

  fit() {
    const { width, height } = this.stage.getBoundingClientRect();
    const [w, h] = this.s.size;
    this.scale = Math.max(NARROWEST, Math.min(1.2, (width - 24) / w, (height - 24) / h));
    this.x = (width - w * this.scale) / 2;
    this.y = Math.max(12, (height - h * this.scale) / 2);
    this.redraw();
  }

  centre(i) {
    if (i < 0) return;
    const { s } = this;
    const { width, height } = this.stage.getBoundingClientRect();
    this.scale = Math.max(this.scale, 0.7);
    this.x = width / 2 - (s.x[i] + s.w[i] / 2) * this.scale;
    this.y = height / 2 - (s.y[i] + Math.min(s.h[i], height / this.scale) / 2) * this.scale;
    this.redraw();
  }

  show(i) {
    const { s } = this;
    const { width, height } = this.stage.getBoundingClientRect();
    const left = s.x[i] * this.scale + this.x, top = s.y[i] * this.scale + this.y;
    if (left < 0 || top < 0 || left + s.w[i] * this.scale > width || top + Math.min(s.h[i] * this.scale, 60) > height) this.centre(i);
  }

  wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey || event.deltaMode || (Math.abs(event.deltaY) >= 40 && !event.shiftKey && !event.deltaX)) {
      const step = Math.max(-60, Math.min(60, event.deltaY * (event.deltaMode ? 20 : 1)));
      this.zoomTo(this.scale * Math.exp(-step / 300), event.clientX - box.left, event.clientY - box.top);
    } else {
      this.x -= event.shiftKey ? event.deltaY : event.deltaX;
      this.y -= event.shiftKey ? 0 : event.deltaY;
      this.redraw();
    }
  }

  press(event) {
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.hits.style.display = "none";
    this.hover(-1);
    this.grip = { x: event.clientX, y: event.clientY, moved: false };
  }

  move(event) {
    if (!this.grip) return this.hover(this.at(event), event);
    const dx = event.clientX - this.grip.x, dy = event.clientY - this.grip.y;
    if (!this.grip.moved && Math.hypot(dx, dy) < 4) return;
    Object.assign(this.grip, { x: event.clientX, y: event.clientY, moved: true });
    this.canvas.classList.add("drag");
    this.x += dx;
    this.y += dy;
    this.hover(-1);
    this.redraw();
  }

  release(event) {
    const moved = this.grip?.moved;
    this.grip = undefined;
    this.canvas.classList.remove("drag");
    if (moved) return;
    const i = this.at(event);
    if (i >= 0 && this.onMark(i, event)) this.toggle(i);
    else this.select(i);
  }

  jump(event) {
    const box = this.map.getBoundingClientRect();
    const { width, height } = this.stage.getBoundingClientRect();
    this.x = width / 2 - ((event.clientX - box.left) / this.mapScales[0]) * this.scale;
    this.y = height / 2 - ((event.clientY - box.top) / this.mapScales[1]) * this.scale;
    this.redraw();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left - this.x) / this.scale, (event.clientY - box.top - this.y) / this.scale];
  }

  // The box at a pointer: nodes and closed modules before frames, inner frames before outer ones.
  at(event) {
    const [px, py] = this.point(event);
    const { s } = this;
    for (let i = s.key.length - 1; i >= 0; i--) {
      const inside = px >= s.x[i] && px <= s.x[i] + s.w[i] && py >= s.y[i] && py <= s.y[i] + s.h[i];
      if (inside && (s.kind[i] !== "frame" || py <= s.y[i] + 26)) return i;
    }
    return -1;
  }

  // Whether the pointer is on the triangle of a module.
  onMark(i, event) {
    const [px, py] = this.point(event);
    return ["frame", "closed"].includes(this.s.kind[i]) && px <= this.s.x[i] + 24 && py <= this.s.y[i] + 28;
  }

  locate(key) {
    const i = this.number.get(key);
    if (i === undefined) return null;
    const box = this.canvas.getBoundingClientRect();
    const { s } = this;
    const down = s.kind[i] === "frame" ? 13 : s.h[i] / 2;
    return [box.left + this.x + (s.x[i] + s.w[i] / 2) * this.scale, box.top + this.y + (s.y[i] + down) * this.scale];
  }

  hover(i, event) {
    if (i !== this.hovered) {
      this.hovered = i;
      this.canvas.classList.toggle("over", i >= 0);
      this.redraw();
      this.tip.style.display = i >= 0 ? "block" : "none";
      if (i >= 0) this.tip.replaceChildren(...this.tipLines(i));
    }
    if (i >= 0 && event) {
      const box = this.stage.getBoundingClientRect();
      const x = event.clientX - box.left, y = event.clientY - box.top;
      const { offsetWidth, offsetHeight } = this.tip;
      this.tip.style.left = `${Math.max(4, x + 16 + offsetWidth > box.width ? x - offsetWidth - 12 : x + 16)}px`;
      this.tip.style.top = `${Math.max(4, Math.min(y + 14, box.height - offsetHeight - 6))}px`;
    }
  }

  tipLines(i) {
    const { s, data } = this;
    const line = (text, name = "") => {
      const made = element("div", name, text);
      return made;
    };
    const lines = [element("b", "", s.title[i])];
    if (s.sub[i]) lines.push(line(s.sub[i], "quiet"));
    if (s.nodes[i] > 1) lines.push(line(`${s.nodes[i]} nodes`));
    if (s.shape[i]) lines.push(line(`output ${s.shape[i]}`));
    const names = (list) => list.slice(0, 6).map(([g]) => `g${g} (${data.groups.name[g]}, ${data.groups.size[g]})`).join(", ")
      + (list.length > 6 ? ` and ${list.length - 6} more` : "");
    if (s.writes[i].length) lines.push(line(`writes ${names(s.writes[i])}`));
    if (s.reads[i].length) lines.push(line(`reads ${names(s.reads[i])}`));
    if (s.fixed[i]) lines.push(line(`fixed: ${s.fixed[i]}`));
    if (s.parameters[i]) lines.push(line(`${count(s.parameters[i])} parameters`));
    if (s.macs[i]) lines.push(line(`${count(s.macs[i])} MACs`));
    if (data.overlay?.labels[i]) lines.push(line(`${data.overlay.name}: ${data.overlay.labels[i]}`));
    return lines;
  }

  // ---- choosing ----------------------------------------------------------------------------------------------------

  select(i) {
    const key = this.s.key[i] ?? "";
    if (i === this.selected) return;
    this.selected = i;
    this.pending = key;
    this.live.textContent = i >= 0 ? `${this.s.title[i]} ${this.s.sub[i]} ${this.label(i)} ${this.s.fixed[i]}` : "nothing selected";
    this.tell("selected", key);
    this.redraw();
  }

  toggle(i) {
    if (i < 0 || !["frame", "closed"].includes(this.s.kind[i])) return;
    const { s } = this;
    this.anchor = { key: s.key[i], x: this.x + (s.x[i] + s.w[i] / 2) * this.scale, y: this.y + s.y[i] * this.scale };
    this.hover(-1);
    this.ask("toggle", s.key[i]);
  }

  key(event) {
    const moves = { ArrowDown: "next", ArrowUp: "before", ArrowLeft: -1, ArrowRight: 1 };
    const acts = {
      f: () => this.fit(), "+": () => this.zoomBy(1.3), "=": () => this.zoomBy(1.3), "-": () => this.zoomBy(1 / 1.3),
      "/": () => this.query.focus(), Enter: () => this.toggle(this.selected), " ": () => this.toggle(this.selected),
      Escape: () => this.select(-1), Backspace: () => this.toggle(this.parent(this.selected)),
    };
    const act = moves[event.key] !== undefined ? () => this.step(moves[event.key]) : acts[event.key];
    const search = (event.ctrlKey || event.metaKey) && event.key === "f";
    if ((event.ctrlKey || event.metaKey || event.altKey) && !search) return;
    if (!act && !search) return;
    event.preventDefault();
    event.stopPropagation();
    if (search) this.query.focus();
    else act();
  }

  // The frame that holds a box.
  parent(i) {
    if (i < 0) return -1;
    const { s } = this;
    let best = -1;
    for (let f = 0; f < i; f++) {
      if (s.kind[f] === "frame" && s.x[f] < s.x[i] && s.y[f] < s.y[i] && s.x[f] + s.w[f] > s.x[i] + s.w[i] && s.y[f] + s.h[f] > s.y[i] + s.h[i]) best = f;
    }
    return best;
  }

  step(way) {
    const { s } = this;
    let to = -1;
    if (this.selected < 0 || s.kind[this.selected] === "frame") {
      to = s.kind.findIndex((kind) => kind !== "frame");
    } else if (typeof way === "string") {
      const near = (this[way].get(this.selected) ?? []).slice();
      near.sort((a, b) => this.apart(a) - this.apart(b));
      to = near[0] ?? -1;
    } else {
      const here = s.x[this.selected] + s.w[this.selected] / 2;
      const middle = s.y[this.selected] + s.h[this.selected] / 2;
      const row = s.key.map((_, i) => i).filter((i) => s.kind[i] !== "frame" && i !== this.selected
        && s.y[i] <= middle && s.y[i] + s.h[i] >= middle && Math.sign(s.x[i] + s.w[i] / 2 - here) === way);
      row.sort((a, b) => Math.abs(s.x[a] - here) - Math.abs(s.x[b] - here));
      to = row[0] ?? -1;
    }
    if (to < 0) return;
    this.select(to);
    this.show(to);
  }

  apart(i) {
    const { s } = this;
    return Math.hypot(s.x[i] - s.x[this.selected], s.y[i] - s.y[this.selected]);
  }

  // ---- saving ------------------------------------------------------------------------------------------------------

  saveSvg() {
    const theme = this.theme();
    const [w, h] = this.s.size;
    const pen = new SvgPen(new OffscreenCanvas(1, 1).getContext("2d"));
    pen.box(0, 0, w, h, { fill: theme.back, radius: 0 });
    this.paint(pen, theme, [0, 0, w, h], 1);
    const text = `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}" font-family="${escape(FAMILY)}">\n${pen.parts.join("\n")}\n</svg>\n`;
    save(new Blob([text], { type: "image/svg+xml" }), `${this.data.file}.svg`);
  }

  savePng() {
    const theme = this.theme();
    const [w, h] = this.s.size;
    // Browsers refuse canvases beyond about 16,000 pixels a side and 2^26 in all.
    const scale = Math.min(2, 16000 / w, 16000 / h, Math.sqrt(2 ** 26 / (w * h)));
    const sheet = document.createElement("canvas");
    sheet.width = Math.ceil(w * scale);
    sheet.height = Math.ceil(h * scale);
    const g = sheet.getContext("2d");
    g.fillStyle = theme.back;
    g.fillRect(0, 0, sheet.width, sheet.height);
    g.scale(scale, scale);
    this.paint(new CanvasPen(g), theme, [0, 0, w, h], 1);
    sheet.toBlob((blob) => save(blob, `${this.data.file}.png`));
  }
}

// ---- small things ----------------------------------------------------------------------------------------------------

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function put(map, key, value) {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

function gather(keys, values) {
  const map = new Map();
  keys.forEach((key, index) => put(map, key, values[index]));
  return map;
}

function curve(s, e) {
  const bend = (x0, y0, x1, y1) => {
    if (Math.abs(x0 - x1) < 0.5) return `L${x1} ${y1}`;
    const d = (y1 - y0) / 2;
    return `C${x0} ${y0 + d} ${x1} ${y1 - d} ${x1} ${y1}`;
  };
  const [x0, y0, x1, y1, lane] = [s.x0[e], s.y0[e], s.x1[e], s.y1[e], s.lane[e]];
  const begin = `M${x0} ${y0}`;
  if (s.back[e]) {
    const side = Math.min(x0, x1) - 60;
    return `${begin}C${side} ${y0 + 30} ${side} ${y1 - 30} ${x1} ${y1}`;
  }
  if (lane === null) return begin + bend(x0, y0, x1, y1);
  return `${begin}${bend(x0, y0, lane, s.top[e])}L${lane} ${s.bottom[e]}${bend(lane, s.bottom[e], x1, y1)}`;
}

let FAMILY = "sans-serif";
function font(size, bold) {
  return `${bold ? "600 " : ""}${size}px ${FAMILY}`;
}

const WIDTHS = new Map();
function measure(g, text, size, bold) {
  g.font = font(size, bold);
  return width(g, text);
}

function width(g, text) {
  const key = `${g.font}|${text}`;
  let known = WIDTHS.get(key);
  if (known === undefined) {
    known = g.measureText(text).width;
    if (WIDTHS.size > 50000) WIDTHS.clear();
    WIDTHS.set(key, known);
  }
  return known;
}

// A text that fits, its middle left out where it is too long: the ends of a name tell most.
function shorten(g, text, room) {
  if (width(g, text) <= room) return text;
  let low = 0, high = text.length;
  while (low < high) {
    const kept = (low + high + 1) >> 1;
    if (width(g, clip(text, kept)) <= room) low = kept;
    else high = kept - 1;
  }
  return clip(text, low);
}

function clip(text, kept) {
  const head = Math.floor(kept / 4);
  return `${text.slice(0, head)}…${kept > head ? text.slice(head - kept) : ""}`;
}

function dims(shape) {
  const parts = shape.split("×");
  return parts.length > 1 ? parts.slice(1).join("×") : shape;
}

function rgb(colour) {
  if (colour.startsWith("#")) {
    const hex = colour.length < 7 ? [...colour.slice(1)].map((c) => c + c).join("") : colour.slice(1);
    return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }
  return (colour.match(/[\d.]+/g) ?? [0, 0, 0]).slice(0, 3).map(Number);
}

const MIXED = new Map();
function mix(a, b, share) {
  const key = `${a}${b}${share}`;
  if (!MIXED.has(key)) {
    const [one, other] = [rgb(a), rgb(b)];
    MIXED.set(key, `rgb(${one.map((value, k) => Math.round(value * share + other[k] * (1 - share))).join(",")})`);
  }
  return MIXED.get(key);
}

// Little is near the ground, much is far from it: dark on light, light on dark.
function ramp(share, ground) {
  const full = luminance(ground) > 0.2 ? "#08306b" : "#9ccbff";
  return mix(full, ground, 0.08 + (0.92 * Math.round(share * 50)) / 50);
}

function luminance(colour) {
  const [r, g, b] = rgb(colour).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const INKS = new Map();
function inkOn(colour) {
  if (!INKS.has(colour)) INKS.set(colour, luminance(colour) > 0.179 ? "#000000" : "#ffffff");
  return INKS.get(colour);
}

function count(number) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (number >= size) return `${(number / size).toFixed(2)} ${unit}`;
  return String(number);
}

function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function save(blob, name) {
  const link = element("a", "");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
