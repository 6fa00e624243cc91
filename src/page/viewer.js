// The splat viewer of the report: a canvas per model, one camera. `gsplat` is src/page/vendor/gsplat.js, to whose shader
// src/page/viewer.py adds `depthRange`; the scenes are in #viewer-scenes. Until a browser shows that it has WebGL 2, #room shows stills.
// On a page from disk a module worker from a blob: address never starts; refused one, the library takes a data: address.
const GSPLAT = gsplat(class extends Worker {
  constructor(address, options) {
    if (address.startsWith("blob:")) throw new TypeError("blob: workers do not start on a page from disk");
    super(address, options);
  }
});
const room = document.querySelector("#room");
const scenes = JSON.parse(document.querySelector("#viewer-scenes").textContent);
const AWAKE = 1500;  // milliseconds that drawing goes on after the last movement; sorting lags behind

// The inverse of src/page/viewer.py's `packed_gaussians`.
async function unpacked(model, unit) {
  const bytes = Uint8Array.from(atob(model.data), letter => letter.charCodeAt(0));
  const buffer = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const n = model.count, between = (range, share) => range[0] + share * (range[1] - range[0]);
  const positions = Float32Array.from(new Uint16Array(buffer, 0, 3 * n), q => unit * Math.sinh(between(model.places, q / 65535)));
  const scales = Float32Array.from(new Uint8Array(buffer, 6 * n, 3 * n), q => Math.exp(between(model.scales, q / 255)));
  const colours = new Uint8Array(buffer.slice(9 * n, 13 * n));
  const turns = Float32Array.from(new Int8Array(buffer, 13 * n, 4 * n), q => q / 127);
  for (let i = 0; i < 4 * n; i += 4) {
    const length = Math.hypot(turns[i], turns[i + 1], turns[i + 2], turns[i + 3]);
    for (let axis = 0; axis < 4; axis++) turns[i + axis] /= length;
  }
  return new GSPLAT.SplatData(n, positions, turns, scales, colours);
}

const panes = [...room.querySelectorAll("canvas")].map(canvas => ({ canvas, name: canvas.parentElement.querySelector("figcaption") }));
const view = { position: new GSPLAT.Vector3(), rotation: new GSPLAT.Quaternion(), pivot: new GSPLAT.Vector3() };
const SHOWN = ["colour", "depth"];
let current = null, shown = SHOWN[0];  // scene; what of it
let drawUntil = 0, drawing = false;

function draw(now) {
  for (const { renderer, scene, camera } of panes) {
    camera.position = view.position;
    camera.rotation = view.rotation;
    const { gl, renderProgram: { program } } = renderer;
    gl.useProgram(program);
    gl.uniform2f(gl.getUniformLocation(program, "depthRange"), ...(shown === "depth" ? current.depth : [0, 0]));
    renderer.render(scene, camera);
  }
  if (panes.every(({ renderer }) => renderer.renderProgram.depthIndex.length)) room.dataset.drawn = panes.length;
  else drawUntil = now + AWAKE;
  drawing = now < drawUntil;
  if (drawing) requestAnimationFrame(draw);
}

function wake() {
  drawUntil = performance.now() + AWAKE;
  if (!drawing) requestAnimationFrame(draw);
  drawing = true;
}

function stand(chosen, place) {
  view.position = new GSPLAT.Vector3(...place.position);
  view.rotation = new GSPLAT.Quaternion(...place.rotation);
  view.pivot = view.position.add(view.rotation.apply(new GSPLAT.Vector3(0, 0, chosen.distance)));
  wake();
}

function turn(axis, angle) {
  const step = GSPLAT.Quaternion.FromAxisAngle(axis, angle);
  view.position = view.pivot.add(step.apply(view.position.subtract(view.pivot)));
  view.rotation = step.multiply(view.rotation).normalize();
}

function orbit(right, down) {
  turn(new GSPLAT.Vector3(0, 1, 0), right);
  turn(view.rotation.apply(new GSPLAT.Vector3(1, 0, 0)), -down);
  wake();
}

function slide(right, down) {
  const distance = view.position.distanceTo(view.pivot);
  const step = view.rotation.apply(new GSPLAT.Vector3(-right * distance, -down * distance, 0));
  view.position = view.position.add(step);
  view.pivot = view.pivot.add(step);
  wake();
}

function approach(factor) {
  view.position = view.pivot.add(view.position.subtract(view.pivot).multiply(factor));
  wake();
}

function buttons(holder, entries, choose) {
  holder.replaceChildren(...entries.map((words, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words;
    button.addEventListener("click", () => choose(number));
    return button;
  }));
}

function press(holder, chosen) {
  for (const [number, button] of holder.querySelectorAll("button").entries()) button.setAttribute("aria-pressed", number === chosen);
}

function showAs(number) {
  shown = SHOWN[number];
  press(room.querySelector(".shown"), number);
  wake();
}

// A new canvas for a new scene: a renderer that is used again starts with the order of the Gaussians it had before.
function freshen(pane) {
  const canvas = pane.canvas.cloneNode();
  pane.renderer?.dispose();
  pane.renderer?.gl.getExtension("WEBGL_lose_context")?.loseContext();
  pane.canvas.replaceWith(canvas);
  pane.canvas = canvas;
  pane.renderer = new GSPLAT.WebGLRenderer(canvas, []);
  listen(canvas);
}

async function show(chosen) {
  delete room.dataset.drawn;
  current = chosen;
  await Promise.all(chosen.models.map(async model => { model.splats ??= await unpacked(model, chosen.unit); }));
  press(room.querySelector(".scenes"), scenes.indexOf(chosen));
  room.querySelector(".range").textContent = `depth from ${chosen.depth.map(z => z.toPrecision(2)).join(" (bright) to ")} (dark), in the network's units`;
  const [width, height] = chosen.size;
  for (const [number, pane] of panes.entries()) {
    const model = chosen.models[number];
    pane.name.textContent = model.name;
    freshen(pane);
    pane.canvas.style.aspectRatio = `${width} / ${height}`;
    pane.scene = new GSPLAT.Scene();
    pane.scene.addObject(new GSPLAT.Splat(model.splats.clone()));
    pane.camera = new GSPLAT.Camera();
    [pane.camera.data.fx, pane.camera.data.fy] = chosen.focal;
    pane.camera.data.near = chosen.distance / 100;
    pane.renderer.setSize(width, height);  // as scored: at more pixels, gaps open that no scored picture has
  }
  buttons(room.querySelector(".cameras"), chosen.cameras.map(({ name }) => name), number => stand(chosen, chosen.cameras[number]));
  stand(chosen, chosen.cameras[0]);
}

function listen(canvas) {
  const pointers = new Map();
  const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY); };
  canvas.addEventListener("pointerdown", event => { pointers.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); });
  for (const over of ["pointerup", "pointercancel"]) canvas.addEventListener(over, event => pointers.delete(event.pointerId));
  canvas.addEventListener("pointermove", event => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const width = canvas.clientWidth, two = pointers.size === 2, apart = two && spread();
    const right = (event.clientX - before.clientX) / width, down = (event.clientY - before.clientY) / width;
    pointers.set(event.pointerId, event);
    if (two) approach(apart / spread());
    if (two || event.shiftKey || event.buttons === 2) slide(two ? right / 2 : right, two ? down / 2 : down);
    else orbit(2 * right, 2 * down);
  });
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("wheel", event => {
    if (document.activeElement !== canvas) return;  // until it was clicked, the page scrolls
    event.preventDefault();
    approach(Math.exp(event.deltaY / 800));
  }, { passive: false });
  canvas.addEventListener("keydown", event => {
    const step = 0.06, move = event.shiftKey ? slide : orbit;
    const keys = { ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0), ArrowUp: () => move(0, step),
      ArrowDown: () => move(0, -step), "+": () => approach(0.92), "=": () => approach(0.92), "-": () => approach(1.08) };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}

function open() {
  buttons(room.querySelector(".scenes"), scenes.map(chosen => chosen.episode.replaceAll("__", " · ")), number => show(scenes[number]));
  buttons(room.querySelector(".shown"), SHOWN, showAs);
  press(room.querySelector(".shown"), 0);
  show(scenes[0]);
}

if (document.createElement("canvas").getContext("webgl2") && window.DecompressionStream) {
  delete room.dataset.missing;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    open();
  }, { rootMargin: "400px" }).observe(room);
}
