// The page that plays a 4D object. What it shows stands in the page itself: #glb and #splats-file, base64.
import { SparkRenderer } from "@sparkjsdev/spark";
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { RoomEnvironment } from "three/addons/environments/RoomEnvironment.js";
import { MeshoptDecoder } from "three/addons/libs/meshopt_decoder.module.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { SplatSequence } from "./splats.js";

const $ = (id) => document.getElementById(id);
const BACKGROUNDS = ["dark", "grey", "light", "checkers"];
const FOV_DEG = 40;
const DISTANCE = 3;
const GLB_FPS = 24; // of files that do not say

class Viewer {
  constructor() {
    this.canvas = $("canvas");
    this.renderer = new THREE.WebGLRenderer({ canvas: this.canvas, alpha: true, antialias: true, preserveDrawingBuffer: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setClearColor(0, 0);
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(FOV_DEG, 1, 0.01, 100);
    this.orbit = new OrbitControls(this.camera, this.canvas);
    this.orbit.enableDamping = true;
    this.orbit.minDistance = 0.2;
    this.orbit.maxDistance = 20;
    this.orbit.addEventListener("change", () => { this.dirty = true; });
    this.fps = 1;
    this.numFrames = 1;
    this.time = 0;
    this.speed = 1;
    this.playing = false;
    this.between = true;
    this.mode = "mesh";
    this.dirty = true;
    this.pictures = 0;
  }

  /** Read what the page carries. */
  async load() {
    const splats = takeBytes("splats-file");
    const glb = takeBytes("glb");
    if (splats) this.#addSplats(new SplatSequence(splats));
    if (glb) await this.#addMesh(glb);
    if (!this.mesh && !this.sequence) throw new Error("This page carries no object.");
    $("modes").hidden = !(this.mesh && this.sequence);
    this.setMode(this.mesh ? "mesh" : "splats");
    $("scrub").max = this.duration;
    $("controls").hidden = false;
    this.lookFrom(0, 15, DISTANCE);
    this.fromAddress();
  }

  #addSplats(sequence) {
    this.sequence = sequence;
    this.fps = sequence.fps;
    this.numFrames = sequence.numFrames;
    sequence.mesh.rotation.x = -Math.PI / 2; // z up to three's y up
    this.spark = new SparkRenderer({ renderer: this.renderer, onDirty: () => { this.dirty = true; } });
    this.scene.add(this.spark, sequence.mesh);
  }

  async #addMesh(bytes) {
    const loader = new GLTFLoader().setMeshoptDecoder(MeshoptDecoder);
    const gltf = await loader.parseAsync(bytes.buffer, "");
    const described = gltf.parser.json.asset.extras?.mv4d;
    this.mesh = new THREE.Group();
    this.mesh.add(gltf.scene);
    this.clips = gltf.animations;
    this.mixer = new THREE.AnimationMixer(gltf.scene);
    this.setClip(0);
    // Bounds of meshes do not follow what morph targets and joints do to them.
    gltf.scene.traverse((thing) => { thing.frustumCulled = false; });
    if (described) {
      const zUp = new THREE.Matrix4().set(...described.object_from_gltf.flat());
      new THREE.Matrix4().makeRotationX(-Math.PI / 2).multiply(zUp).decompose(this.mesh.position, this.mesh.quaternion, this.mesh.scale);
      this.fps = described.fps;
      this.numFrames = described.num_frames;
    } else {
      this.#place(gltf.scene);
      if (!this.sequence) {
        this.fps = GLB_FPS;
        this.numFrames = Math.max(1, Math.round(this.longest * GLB_FPS) + 1);
      }
    }
    const environment = new THREE.PMREMGenerator(this.renderer);
    this.scene.environment = environment.fromScene(new RoomEnvironment(), 0.04).texture;
    this.scene.environmentIntensity = 0.6;
    const sun = new THREE.DirectionalLight(0xffffff, 1.2);
    sun.position.set(1.5, 2.5, 3);
    this.scene.add(this.mesh, sun);
    $("clips-label").hidden = this.clips.length < 2;
    this.clips.forEach((clip, index) => $("clips").add(new Option(clip.name || `clip ${index + 1}`, index)));
  }

  /** Put an object of unknown size into the unit sphere, wherever it goes. */
  #place(object) {
    const box = new THREE.Box3();
    for (let k = 0; k <= 8; k++) {
      this.#pose((this.longest * k) / 8);
      object.updateMatrixWorld(true);
      box.expandByObject(object, true);
    }
    const sphere = box.getBoundingSphere(new THREE.Sphere());
    const scale = 1 / Math.max(sphere.radius, 1e-9);
    this.mesh.scale.setScalar(scale);
    this.mesh.position.copy(sphere.center).multiplyScalar(-scale);
  }

  get longest() {
    return this.clips?.[this.clip]?.duration ?? 0;
  }

  /** Seconds from the first frame to the first again. */
  get duration() {
    return this.numFrames / this.fps;
  }

  setClip(index) {
    this.clip = index;
    this.mixer.stopAllAction();
    this.action = this.clips[index] && this.mixer.clipAction(this.clips[index]);
    this.action?.play();
    this.dirty = true;
  }

  #pose(seconds) {
    if (!this.action) return;
    this.action.time = Math.min(seconds, this.action.getClip().duration);
    this.mixer.update(0);
  }

  setMode(mode) {
    this.mode = mode;
    if (this.mesh) this.mesh.visible = mode === "mesh";
    if (this.sequence) this.sequence.mesh.visible = mode === "splats";
    if (this.spark) this.spark.visible = mode === "splats";
    $("mesh").setAttribute("aria-pressed", String(mode === "mesh"));
    $("splats").setAttribute("aria-pressed", String(mode === "splats"));
    const what = mode === "mesh" ? `${countTriangles(this.mesh).toLocaleString("en")} triangles`
      : `${this.sequence.count.toLocaleString("en")} Gaussians`;
    $("facts").textContent = `${what} · ${this.numFrames} frames at ${+this.fps.toFixed(3)} a second`;
    this.dirty = true;
  }

  setBetween(between) {
    this.between = between;
    $("between").setAttribute("aria-pressed", String(between));
    this.dirty = true;
  }

  setPlaying(playing) {
    this.playing = playing && this.numFrames > 1;
    $("play").textContent = this.playing ? "⏸" : "▶";
    $("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
    this.before = undefined;
  }

  setSpeed(speed) {
    this.speed = speed;
    $("speed").value = String(speed);
  }

  /** Go to a second; outside the motion it goes round. */
  seek(seconds) {
    this.time = ((seconds % this.duration) + this.duration) % this.duration;
    this.dirty = true;
  }

  get frame() {
    return Math.min(Math.floor(this.time * this.fps + 1e-6), this.numFrames - 1);
  }

  /** Step by whole frames and stop there. */
  step(frames) {
    this.setPlaying(false);
    this.seek(((this.frame + frames + this.numFrames) % this.numFrames) / this.fps);
  }

  /** Azimuth 0 is the front, growing counter-clockwise seen from above, as in pipeline/cameras.py. */
  lookFrom(azimuthDeg, elevationDeg, distance) {
    const azimuth = THREE.MathUtils.degToRad(azimuthDeg);
    const elevation = THREE.MathUtils.degToRad(elevationDeg);
    // What is left of a swing would turn the new view.
    this.orbit.enableDamping = false;
    this.orbit.update();
    this.orbit.enableDamping = true;
    this.orbit.target.set(0, 0, 0);
    this.camera.position.set(Math.sin(azimuth) * Math.cos(elevation), Math.sin(elevation), Math.cos(azimuth) * Math.cos(elevation));
    this.camera.position.multiplyScalar(distance);
    this.orbit.update();
    this.dirty = true;
  }

  setBackground(name) {
    document.body.dataset.background = name;
  }

  /** `#t=0.5&azimuth=90&elevation=15&mode=splats&background=grey&paused`: where the page opens. */
  fromAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const number = (name, otherwise) => (wanted.has(name) && Number.isFinite(+wanted.get(name)) ? +wanted.get(name) : otherwise);
    this.lookFrom(number("azimuth", 0), Math.min(Math.max(number("elevation", 15), -89), 89), number("distance", DISTANCE));
    if (BACKGROUNDS.includes(wanted.get("background"))) this.setBackground(wanted.get("background"));
    if (wanted.get("mode") === "splats" && this.sequence) this.setMode("splats");
    if (wanted.get("mode") === "mesh" && this.mesh) this.setMode("mesh");
    this.seek(number("t", 0));
    this.setPlaying(!wanted.has("paused") && !wanted.has("t"));
  }

  listen() {
    $("play").onclick = () => this.setPlaying(!this.playing);
    $("scrub").oninput = () => { this.setPlaying(false); this.seek(Math.min(+$("scrub").value, this.duration - 1e-9)); };
    $("speed").onchange = () => this.setSpeed(+$("speed").value);
    $("clips").onchange = () => {
      this.setClip(+$("clips").value);
      this.numFrames = Math.max(1, Math.round(this.longest * this.fps) + 1);
      $("scrub").max = this.duration;
      this.seek(0);
      this.setMode(this.mode);
    };
    $("between").onclick = () => this.setBetween(!this.between);
    $("mesh").onclick = () => this.setMode("mesh");
    $("splats").onclick = () => this.setMode("splats");
    $("background").onclick = () => this.nextBackground();
    $("reset").onclick = () => this.lookFrom(0, 15, DISTANCE);
    addEventListener("hashchange", () => this.fromAddress());
    addEventListener("resize", () => this.fit());
    addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      say("The browser took the graphics context away. Reload the page.");
    });
  }

  nextBackground() {
    this.setBackground(BACKGROUNDS[(BACKGROUNDS.indexOf(document.body.dataset.background) + 1) % BACKGROUNDS.length]);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.tagName === "SELECT" || (event.target.id === "scrub" && event.key.startsWith("Arrow"))) return;
    const speeds = [...$("speed").options].map((option) => +option.value);
    const faster = (by) => this.setSpeed(speeds[Math.min(Math.max(speeds.indexOf(this.speed) + by, 0), speeds.length - 1)]);
    const actions = {
      " ": () => this.setPlaying(!this.playing),
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      Home: () => { this.setPlaying(false); this.seek(0); },
      End: () => { this.setPlaying(false); this.seek((this.numFrames - 1) / this.fps); },
      "+": () => faster(1),
      "-": () => faster(-1),
      b: () => this.nextBackground(),
      i: () => this.setBetween(!this.between),
      m: () => { if (this.mesh && this.sequence) this.setMode(this.mode === "mesh" ? "splats" : "mesh"); },
      r: () => this.lookFrom(0, 15, DISTANCE),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / Math.max(height, 1);
    // A tall window keeps the whole object in sight.
    this.camera.fov = this.camera.aspect >= 1 ? FOV_DEG
      : 2 * THREE.MathUtils.radToDeg(Math.atan(Math.tan(THREE.MathUtils.degToRad(FOV_DEG / 2)) / this.camera.aspect));
    this.camera.updateProjectionMatrix();
    this.dirty = true;
  }

  /** One turn of the loop; draws only if something changed. */
  tick(now) {
    if (this.playing) {
      if (this.before !== undefined) this.seek(this.time + ((now - this.before) / 1000) * this.speed);
      this.before = now;
    }
    this.orbit.update();
    if (!this.dirty) return;
    this.dirty = false;
    const exact = Math.min(this.time * this.fps, this.numFrames - 1);
    if (this.mode === "mesh") this.#pose((this.between ? exact : this.frame) / this.fps);
    else this.sequence.show(this.between ? exact : this.frame, this.between);
    this.renderer.render(this.scene, this.camera);
    this.pictures += 1;
    $("scrub").value = this.time;
    $("clock").value = `${this.time.toFixed(2)} s · frame ${this.frame + 1} of ${this.numFrames}`;
  }
}

/** The bytes of a data element; the element is removed. */
function takeBytes(id) {
  const element = $(id);
  if (!element) return null;
  const text = atob(element.textContent.trim());
  element.remove();
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function countTriangles(object) {
  let count = 0;
  object.traverse(({ isMesh, geometry }) => {
    if (isMesh) count += (geometry.index ?? geometry.attributes.position).count / 3;
  });
  return Math.round(count);
}

function say(message) {
  $("message").textContent = message;
  $("message").hidden = false;
}

async function start() {
  if (!document.createElement("canvas").getContext("webgl2")) {
    say("This browser has no WebGL 2, which the viewer draws with.\nTurn hardware acceleration on in its settings, or open the page in a newer Chrome, Edge, Firefox or Safari.");
    return;
  }
  const viewer = new Viewer();
  window.viewer = viewer;
  try {
    await viewer.load();
  } catch (error) {
    say(`The object cannot be shown: ${error.message}`);
    return;
  }
  viewer.listen();
  viewer.fit();
  viewer.renderer.setAnimationLoop((now) => viewer.tick(now));
}

start();
