// The contact sheet's program: decides every clip again whenever a rule changes, and plays the clips in sight.
// Text from the data reaches the page only as text nodes and plain attributes; nothing is ever parsed as HTML.

const data = JSON.parse(byId("data").textContent);
const clips = data.clips;
const rules = data.rules;

const SLIDER_STEPS = 1000;
const HISTOGRAM_BINS = 56;
const CARD_GAP_PX = 10;
const CARD_TEXT_PX = 63; // the three lines below a card's player, as the style sheet lays them out
const CARD_MIN_PX = 176;
const OVERSCAN_ROWS = 2;
const CHIPS_SHOWN = 8;
const REJECTS_SHOWN = 100;
const BACKGROUNDS = ["grey", "white", "black", "checker"];

// --------------------------------------------------------------------------------------------------- helpers

function byId(id) {
  return document.getElementById(id);
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function setIcon(button, name, label) {
  button.querySelector("use").setAttribute("href", `#icon-${name}`);
  button.setAttribute("aria-label", label);
  button.title = label;
}

const numberFormat = new Intl.NumberFormat("en");
const count = (number) => numberFormat.format(number);
const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
const short = (number) => (Number.isNaN(number) ? "–" : String(Number(number.toPrecision(4))));
const clamp = (number, low, high) => Math.min(Math.max(number, low), high);

/** Runs `work` once before the next paint, however often it is asked for. */
function beforePaint(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${what}`);
  } catch {
    byId("plain-text").value = text; // no access to the clipboard: show the text instead
    byId("plain").showModal();
    byId("plain-text").select();
  }
}

let toastTimer = 0;
function toast(text) {
  byId("toast").textContent = text;
  byId("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => byId("toast").classList.remove("shown"), 1800);
}

// ------------------------------------------------------------------------------------- state and its address

const PLAIN_STATE = {
  tab: "clips",
  show: "all",
  sort: "given",
  dir: "asc",
  q: "",
  size: 64,
  speed: 1,
  bg: "grey",
  rules: "auto",
  clip: "",
};
const FACETS = ["reason", "licence", "tag"];
const state = { ...PLAIN_STATE };
const chosen = Object.fromEntries(FACETS.map((facet) => [facet, new Set()]));
for (const rule of rules) rule.key = `${rule.reason}.${rule.score}.${rule.op === "<" ? "lt" : "gt"}`;
const current = rules.map((rule) => ({ on: true, threshold: rule.threshold }));

function readAddress() {
  const params = new URLSearchParams(location.hash.slice(1));
  for (const [name, plain] of Object.entries(PLAIN_STATE)) {
    const text = params.get(name);
    state[name] = text === null ? plain : typeof plain === "number" ? Number(text) || plain : text;
  }
  state.size = clamp(state.size, 32, 160);
  state.speed = clamp(state.speed, 0.25, 4);
  if (!BACKGROUNDS.includes(state.bg)) state.bg = PLAIN_STATE.bg;
  if (!sortKeys.has(state.sort)) state.sort = PLAIN_STATE.sort;
  if (!["all", "kept", "dropped", "changed"].includes(state.show)) state.show = PLAIN_STATE.show;
  for (const facet of FACETS) chosen[facet] = new Set(params.getAll(facet));
  rules.forEach((rule, r) => {
    const [threshold, off] = (params.get(rule.key) ?? "").split(",");
    const number = threshold === "" ? NaN : Number(threshold);
    current[r] = { on: off !== "off", threshold: Number.isFinite(number) ? number : rule.threshold };
  });
}

function address() {
  const params = new URLSearchParams();
  for (const [name, plain] of Object.entries(PLAIN_STATE))
    if (state[name] !== plain) params.set(name, state[name]);
  for (const facet of FACETS) for (const value of chosen[facet]) params.append(facet, value);
  rules.forEach((rule, r) => {
    const { on, threshold } = current[r];
    if (!on || threshold !== rule.threshold) params.set(rule.key, on ? threshold : `${threshold},off`);
  });
  return `#${params}`;
}

let addressTimer = 0;
function writeAddress() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", address()), 200);
}

// ------------------------------------------------------------------------------------------------- decisions

/** Score of every clip; NaN where it is missing, so that no comparison with it holds. */
const columns = new Map(
  data.scores.map((score, c) => [score, Float64Array.from(clips, (clip) => clip.scores[c] ?? NaN)]),
);

function fails(rule, threshold, index) {
  const value = columns.get(rule.score)[index];
  return rule.op === "<" ? value < threshold : value > threshold;
}

/** First failing rule of every clip, -1 if it is kept; and how many clips fail each rule. */
function decide(settings) {
  const first = new Int16Array(clips.length).fill(-1);
  const failing = rules.map(() => 0);
  for (let r = rules.length - 1; r >= 0; r--) {
    if (!settings[r].on) continue;
    for (let index = 0; index < clips.length; index++) {
      if (fails(rules[r], settings[r].threshold, index)) {
        first[index] = r;
        failing[r]++;
      }
    }
  }
  return { first, failing };
}

/** Reasons keep their colour class wherever they appear. */
const reasons = [...new Set(rules.map((rule) => rule.reason))];
const hue = (reason) => `hue-${reasons.indexOf(reason) % 8}`;

const preset = decide(rules.map((rule) => ({ on: true, threshold: rule.threshold }))).first;

let decision = decide(current);
const isKept = (index) => decision.first[index] < 0;
const isChanged = (index) => decision.first[index] < 0 !== preset[index] < 0;

/** Why a rule drops a clip: `motion_mean 0.0011 < 0.005`. */
function cause(r, index) {
  const value = columns.get(rules[r].score)[index];
  return `${rules[r].score} ${short(value)} ${rules[r].op} ${short(current[r].threshold)}`;
}

/** Every rule that drops the clip as the rules stand, in their order. */
function failingRules(index) {
  return rules.flatMap((rule, r) => (current[r].on && fails(rule, current[r].threshold, index) ? [r] : []));
}

/** How many clips are kept, how many are so against the preset, and how many each reason drops. */
function takeStock() {
  const byReason = new Map(reasons.map((reason) => [reason, 0]));
  const counts = { kept: 0, gained: 0, lost: 0, byReason };
  decision.first.forEach((first, index) => {
    if (first < 0) counts.kept++;
    else byReason.set(rules[first].reason, byReason.get(rules[first].reason) + 1);
    if (isChanged(index)) counts[first < 0 ? "gained" : "lost"]++;
  });
  return counts;
}
let stock = takeStock();

// ------------------------------------------------------------------------------------------ choice and order

const haystacks = clips.map((clip) =>
  [clip.title, clip.animation, clip.rig, clip.author, clip.licence, clip.id, ...clip.tags]
    .join("\n")
    .toLowerCase(),
);
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** Name of an order: [label, value of a clip in it]; an order without values is by title or as given. */
const sortKeys = new Map([
  ["given", ["Order given", null]],
  ["title", ["Title", null]],
  ...data.scores.map((score) => [`score.${score}`, [score, (index) => columns.get(score)[index]]]),
  ...rules.map((rule, r) => [
    `near.${rule.key}`,
    [
      `near ${rule.reason}: ${rule.score}`,
      (index) => Math.abs(columns.get(rule.score)[index] - current[r].threshold),
    ],
  ]),
]);

/** All clips in the chosen order; those without the score come last both ways round. */
function sorted() {
  const sign = state.dir === "desc" ? -1 : 1;
  const order = clips.map((_, index) => index);
  const value = sortKeys.get(state.sort)[1];
  if (state.sort === "title") {
    const label = (index) => `${clips[index].title}\n${clips[index].animation}`;
    const labels = order.map(label);
    return order.sort((a, b) => sign * collator.compare(labels[a], labels[b]) || a - b);
  }
  if (!value) return sign < 0 ? order.reverse() : order;
  const values = Float64Array.from(order, value);
  return order.sort((a, b) => {
    const missing = Number.isNaN(values[a]) - Number.isNaN(values[b]);
    return missing || sign * (values[a] - values[b]) || a - b;
  });
}

function searchWords() {
  return state.q.toLowerCase().split(/\s+/).filter(Boolean);
}

function filtered(order) {
  const words = searchWords();
  const { reason, licence, tag } = chosen;
  return order.filter((index) => {
    const clip = clips[index];
    if (state.show === "kept" && !isKept(index)) return false;
    if (state.show === "dropped" && isKept(index)) return false;
    if (state.show === "changed" && !isChanged(index)) return false;
    if (reason.size && !reason.has(rules[decision.first[index]]?.reason)) return false;
    if (licence.size && !licence.has(clip.licence)) return false;
    if (tag.size && !clip.tags.some((each) => tag.has(each))) return false;
    return words.every((word) => haystacks[index].includes(word));
  });
}

let orderCache = { key: "", order: [] };
let found = []; // the clips to show, in order

/** Decides, chooses and draws everything that depends on it. */
function refreshNow() {
  measureGrid();
  decision = decide(current);
  stock = takeStock();
  const near = state.sort.startsWith("near.") ? JSON.stringify(current) : "";
  const key = `${state.sort} ${state.dir} ${near}`;
  if (key !== orderCache.key) orderCache = { key, order: sorted() };
  found = filtered(orderCache.order);
  drawTally();
  drawRules();
  drawChips();
  drawFunnel();
  drawToolbar();
  drawGrid(true);
  if (byId("detail").open) drawDetail();
  if (state.tab === "rejects") drawRejects();
  writeAddress();
}
const refresh = beforePaint(refreshNow);

// -------------------------------------------------------------------------------------------------- playback

/** One clock for all players, in the time of the document's animations, so that they stay in step. */
const clock = {
  playing: !matchMedia("(prefers-reduced-motion: reduce)").matches,
  origin: 0, // while playing: when media time was zero
  held: 0, // while paused: the media time, ms
  now() {
    return this.playing ? ((document.timeline.currentTime ?? 0) - this.origin) * state.speed : this.held;
  },
  set(media) {
    this.held = media;
    this.origin = (document.timeline.currentTime ?? 0) - media / state.speed;
    for (const animation of players.values()) this.apply(animation);
  },
  play(playing) {
    const media = this.now();
    this.playing = playing;
    this.set(media);
    drawTransport();
  },
  apply(animation) {
    animation.playbackRate = state.speed;
    if (this.playing) {
      animation.startTime = this.origin;
    } else {
      animation.pause();
      animation.currentTime = this.held;
    }
  },
};
const players = new Map(); // player element -> its animation

const frameAt = (clip, media) =>
  ((Math.floor((media / 1000) * clip.fps + 1e-6) % clip.frames) + clip.frames) % clip.frames;

/**
 * Shows a clip's sprite in the element and steps through its rows; for clips in sight only.
 *
 * The element must be in the document: Chromium never starts an animation that was given its start time outside.
 * Measured for a screen of new cards: data URLs take 60 ms, object URLs 240 ms. Moving the background costs the main thread
 * 27 ms a second for 48 players, drawing to canvases 44 ms.
 */
function startPlayer(player, index) {
  stopPlayer(player);
  const { frames, fps, views } = clips[index];
  player.style.backgroundImage = `url(data:image/webp;base64,${byId(`sprite-${index}`).textContent})`;
  player.style.backgroundSize = `100% ${100 * frames}%`;
  player.style.setProperty("--views", views);
  if (frames < 2) return;
  const animation = player.animate([{ backgroundPositionY: "0%" }, { backgroundPositionY: "100%" }], {
    duration: (1000 * frames) / fps,
    easing: `steps(${frames}, jump-none)`,
    iterations: Infinity,
  });
  players.set(player, animation);
  clock.apply(animation);
}

function stopPlayer(player) {
  players.get(player)?.cancel();
  players.delete(player);
  player.style.backgroundImage = "";
}

function drawTransport() {
  for (const button of document.querySelectorAll('[data-act="play"]')) {
    setIcon(button, clock.playing ? "pause" : "play", clock.playing ? "Pause (space)" : "Play (space)");
  }
}

// ------------------------------------------------------------------------------------------------------ grid

const scroller = byId("scroller");
const gridElement = byId("grid");
const cards = new Map(); // clip index -> card, for the clips in sight
const spareCards = [];
const maxViews = clips.reduce((most, clip) => Math.max(most, clip.views), 1);
const grid = { columns: 1, cardPx: 0, stagePx: 0, rowPx: 1, active: 0, top: 0, height: 0 };

/** Reads the sizes that the grid is laid out by. It comes before all writing, which would make each reading a new layout. */
function measureGrid() {
  const width = gridElement.clientWidth;
  if (!width) return;
  grid.top = scroller.scrollTop;
  grid.height = scroller.clientHeight;
  const least = Math.min(Math.max(state.size * maxViews, CARD_MIN_PX), width);
  grid.columns = Math.max(1, Math.round((width + CARD_GAP_PX) / (least + CARD_GAP_PX)));
  grid.cardPx = Math.floor((width - CARD_GAP_PX * (grid.columns - 1)) / grid.columns);
  grid.stagePx = Math.floor(Math.min((grid.cardPx - 2) / maxViews, Math.max(state.size * 1.6, 64)));
  grid.rowPx = grid.stagePx + CARD_TEXT_PX + 2 + CARD_GAP_PX;
}

/** Brings exactly the cards in sight into the document. `decided`: what the cards say may have changed, too. */
function drawGrid(decided = false) {
  if (state.tab !== "clips" || !grid.height) return;
  const rows = Math.ceil(found.length / grid.columns);
  gridElement.style.height = `${Math.max(0, rows * grid.rowPx - CARD_GAP_PX)}px`;
  gridElement.classList.toggle("nothing", found.length === 0);
  const firstRow = Math.floor(grid.top / grid.rowPx) - OVERSCAN_ROWS;
  const lastRow = Math.ceil((grid.top + grid.height) / grid.rowPx) + OVERSCAN_ROWS;
  const wanted = new Map(); // clip index -> position
  const end = Math.min(found.length, lastRow * grid.columns);
  for (let position = Math.max(0, firstRow * grid.columns); position < end; position++)
    wanted.set(found[position], position);
  const focused = document.activeElement?.closest?.(".card")?.index;
  if (focused !== undefined && found[grid.active] === focused) wanted.set(focused, grid.active); // keep the focus alive
  for (const [index, card] of cards) if (!wanted.has(index)) removeCard(index, card);
  for (const [index, position] of wanted) {
    const known = cards.get(index);
    const card = known ?? addCard(index);
    placeCard(card, position);
    if (decided || !known) describeCard(card, index);
  }
  const active = cards.get(found[grid.active]);
  for (const card of cards.values()) card.firstElementChild.tabIndex = -1;
  (active ?? cards.values().next().value)?.firstElementChild.setAttribute("tabindex", "0");
}
const drawGridSoon = beforePaint(() => {
  measureGrid();
  drawGrid();
});

function addCard(index) {
  const card = spareCards.pop() ?? byId("card-template").content.firstElementChild.cloneNode(true);
  const clip = clips[index];
  card.index = index;
  card.querySelector(".card-title bdi").textContent = clip.title;
  const [animation, rig] = card.querySelectorAll(".card-sub bdi");
  animation.textContent = clip.animation;
  rig.textContent = clip.rig;
  gridElement.append(card);
  startPlayer(card.querySelector(".player"), index);
  cards.set(index, card);
  return card;
}

function removeCard(index, card) {
  stopPlayer(card.querySelector(".player"));
  card.remove();
  cards.delete(index);
  spareCards.push(card);
}

function placeCard(card, position) {
  const row = Math.floor(position / grid.columns);
  const column = position % grid.columns;
  card.position = position;
  card.style.top = `${row * grid.rowPx}px`;
  card.style.left = `${column * (grid.cardPx + CARD_GAP_PX)}px`;
  card.style.width = `${grid.cardPx}px`;
  const stage = card.querySelector(".stage");
  const player = stage.firstElementChild;
  stage.style.height = `${grid.stagePx}px`;
  player.style.width = `${grid.stagePx * clips[card.index].views}px`;
  // Hovering enlarges the player: upwards, off the card's text, unless that is out of the scroller; and inwards.
  const x = column === 0 ? "left" : column === grid.columns - 1 ? "right" : "center";
  const y = row * grid.rowPx - grid.top < grid.stagePx * 0.7 ? "top" : "bottom";
  stage.style.transformOrigin = `${grid.columns === 1 ? "center" : x} ${y}`;
  card.setAttribute("aria-setsize", found.length);
  card.setAttribute("aria-posinset", position + 1);
}

function describeCard(card, index) {
  const clip = clips[index];
  const failing = failingRules(index);
  const [first] = failing;
  const badge = card.querySelector(".badge");
  badge.className = first === undefined ? "badge kept" : `badge ${hue(rules[first].reason)}`;
  badge.textContent = first === undefined ? "kept" : rules[first].reason;
  card.querySelector(".more").textContent = failing.length > 1 ? `+${failing.length - 1}` : "";
  card.querySelector(".value").textContent = cardValue(index, first);
  card.classList.toggle("dropped", first !== undefined);
  card.classList.toggle("changed", isChanged(index));
  const was = isChanged(index)
    ? ` Preset: ${preset[index] < 0 ? "kept" : `dropped, ${rules[preset[index]].reason}`}.`
    : "";
  const verdict =
    first === undefined ? "Kept." : `Dropped: ${failing.map((r) => rules[r].reason).join(", ")}.`;
  const button = card.firstElementChild;
  button.setAttribute("aria-label", `${clip.title}, ${clip.animation}. ${verdict}${was}`);
  const why = failing.map((r) => `${rules[r].reason}: ${cause(r, index)}`);
  button.title = [`${clip.title} · ${clip.animation}`, verdict + was, ...why, clip.tags.join(", ")]
    .filter(Boolean)
    .join("\n");
}

/** The number worth reading on a card: the score sorted by, else the one that decided. */
function cardValue(index, first) {
  const [kind, ...rest] = state.sort.split(".");
  const name = rest.join(".");
  const rule = kind === "near" ? rules.find((each) => each.key === name) : rules[first];
  const score = kind === "score" ? name : rule?.score;
  return score === undefined ? "" : `${score} ${short(columns.get(score)[index])}`;
}

function focusCard(position) {
  if (!found.length) return;
  grid.active = clamp(position, 0, found.length - 1);
  const top = Math.floor(grid.active / grid.columns) * grid.rowPx;
  const bottom = top + grid.rowPx;
  measureGrid();
  if (top < grid.top) scroller.scrollTop = top;
  else if (bottom > grid.top + grid.height) scroller.scrollTop = bottom - grid.height;
  measureGrid();
  drawGrid();
  cards.get(found[grid.active]).firstElementChild.focus({ preventScroll: true });
}

// ----------------------------------------------------------------------------------------------------- rules

const ruleElements = rules.map(buildRule);

function toSlider(rule, threshold) {
  return Math.round(((threshold - rule.low) / (rule.high - rule.low)) * SLIDER_STEPS);
}

function fromSlider(rule, position) {
  const step = (rule.high - rule.low) / SLIDER_STEPS;
  const decimals = clamp(Math.ceil(-Math.log10(step)), 0, 20);
  return Number((rule.low + step * position).toFixed(decimals));
}

function buildRule(rule, r) {
  const root = byId("rule-template").content.firstElementChild.cloneNode(true);
  const part = (selector) => root.querySelector(selector);
  root.classList.add(hue(rule.reason));
  root.setAttribute("aria-label", `Rule ${rule.reason}`);
  part(".reason").textContent = rule.reason;
  part(".score").textContent = rule.score;
  part(".op").textContent = rule.op === "<" ? "<" : ">";
  part(".help bdi").textContent = rule.help;
  part(".restore span").textContent = short(rule.threshold);
  part(".restore").title = `Back to the preset's ${rule.threshold}`;
  const [low, missing, high] = part(".ends").children;
  low.textContent = short(rule.low);
  high.textContent = short(rule.high);
  const numMissing = columns.get(rule.score).reduce((sum, value) => sum + Number.isNaN(value), 0);
  missing.textContent = numMissing ? `${count(numMissing)} without` : "";
  const slider = part('[type="range"]');
  const number = part('[type="number"]');
  slider.setAttribute("aria-label", `${rule.reason}: threshold of ${rule.score}`);
  number.setAttribute("aria-label", `${rule.reason}: threshold of ${rule.score} as a number`);
  number.step = String(fromSlider({ low: 0, high: rule.high - rule.low }, 10));
  drawHistogram(root, rule, r);
  const setThreshold = (threshold) => {
    if (!Number.isFinite(threshold)) return;
    current[r].threshold = threshold;
    refresh();
  };
  slider.addEventListener("input", () => setThreshold(fromSlider(rule, slider.valueAsNumber)));
  number.addEventListener("input", () => setThreshold(number.valueAsNumber));
  number.addEventListener("change", refresh);
  part(".restore").addEventListener("click", () => setThreshold(rule.threshold));
  part(".near").addEventListener("click", () => sortBy(`near.${rule.key}`, "asc"));
  part('[type="checkbox"]').addEventListener("change", (event) => {
    current[r].on = event.target.checked;
    refresh();
  });
  byId("rules").append(root);
  return root;
}

/** Bars of the square root of the count, once: only the border between the two colours moves later. */
function drawHistogram(root, rule, r) {
  const bins = new Array(HISTOGRAM_BINS).fill(0);
  for (const value of columns.get(rule.score)) {
    if (Number.isNaN(value)) continue;
    const bin = Math.floor(((value - rule.low) / (rule.high - rule.low)) * HISTOGRAM_BINS);
    bins[clamp(bin, 0, HISTOGRAM_BINS - 1)]++;
  }
  const most = Math.sqrt(Math.max(1, ...bins));
  const bars = bins.map((size, bin) => {
    const height = size ? Math.max(Math.sqrt(size) / most, 0.04) : 0;
    return `M${bin / HISTOGRAM_BINS} 1v${-height}h${0.86 / HISTOGRAM_BINS}v${height}z`;
  });
  for (const side of ["keep", "drop"]) {
    root.querySelector(`.${side}-side`).id = `${side}-side-${r}`;
    root.querySelector(`path.${side}`).setAttribute("clip-path", `url(#${side}-side-${r})`);
    root.querySelector(`path.${side}`).setAttribute("d", bars.join(""));
  }
}

function drawRules() {
  rules.forEach((rule, r) => {
    const root = ruleElements[r];
    const { on, threshold } = current[r];
    const number = root.querySelector('[type="number"]');
    const slider = root.querySelector('[type="range"]');
    root.classList.toggle("off", !on);
    root.querySelector('[type="checkbox"]').checked = on;
    slider.value = toSlider(rule, threshold);
    slider.setAttribute("aria-valuetext", `${rule.op} ${short(threshold)}`);
    if (document.activeElement !== number || number.valueAsNumber !== threshold) number.value = threshold;
    root.querySelector(".drops").textContent = on
      ? `drops ${count(decision.failing[r])} · ${share(decision.failing[r], clips.length)}`
      : "off";
    root.querySelector(".restore").hidden = threshold === rule.threshold;
    const border = clamp((threshold - rule.low) / (rule.high - rule.low), 0, 1);
    const sides = [root.querySelector(".keep-side rect"), root.querySelector(".drop-side rect")];
    if (rule.op === "<") sides.reverse();
    sides[0].setAttribute("x", 0);
    sides[0].setAttribute("width", border);
    sides[1].setAttribute("x", border);
    sides[1].setAttribute("width", 1 - border);
  });
  byId("reset-rules").disabled = current.every(
    ({ on, threshold }, r) => on && threshold === rules[r].threshold,
  );
}

/** A preset file of the rules as they stand; those switched off stay as comments. */
function thresholdsAsYaml() {
  const adjusted = byId("reset-rules").disabled ? "" : "-adjusted";
  const lines = rules.map((rule, r) => {
    const { on, threshold } = current[r];
    const fields = [
      `reason: ${yamlText(rule.reason)}`,
      `score: ${yamlText(rule.score)}`,
      `drop_if: "${rule.op}"`,
      `threshold: ${yamlNumber(threshold)}`,
      `low: ${yamlNumber(rule.low)}`,
      `high: ${yamlNumber(rule.high)}`,
      `help: ${yamlText(rule.help)}`,
    ];
    return `  ${on ? "" : "# off: "}- {${fields.join(", ")}}`;
  });
  return [
    `name: ${yamlText(data.preset + adjusted)}`,
    `description: Thresholds from the contact sheet; they keep ${stock.kept} of its ${clips.length} clips.`,
    current.some(({ on }) => on) ? "rules:" : "rules: []",
    ...lines,
    "",
  ].join("\n");
}

function yamlText(text) {
  const plain = /^[a-z_][a-z0-9_]*$/i.test(text) && !/^(true|false|yes|no|on|off|null|y|n)$/i.test(text);
  const escape = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  // JSON is YAML but for characters that YAML does not print.
  return plain ? text : JSON.stringify(text).replace(/[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]/g, escape);
}

function yamlNumber(number) {
  const text = String(number);
  return text.includes("e") && !text.includes(".") ? text.replace("e", ".0e") : text; // YAML 1.1 reads 1e-7 as a string
}

// ----------------------------------------------------------------------------- tally, funnel, chips, toolbar

function drawTally() {
  const { kept, gained, lost, byReason } = stock;
  byId("num-kept").textContent = count(kept);
  byId("num-dropped").textContent = count(clips.length - kept);
  byId("num-all").textContent = count(clips.length);
  byId("num-changed").textContent =
    gained || lost ? `against the preset: +${count(gained)} −${count(lost)}` : "as the preset decides";
  drawBar(byId("tally-bar"), kept, clips.length, byReason);
}

/** A bar of `whole`: what is left in one colour, then the losses. */
function drawBar(bar, left, whole, losses) {
  const segment = (className, size, title) => {
    const made = element("span", className);
    made.style.flexGrow = size;
    made.title = title;
    return made;
  };
  const parts = [...losses]
    .filter(([, size]) => size > 0)
    .map(([reason, size]) => segment(`loss ${hue(reason)}`, size, `${reason}: ${count(size)}`));
  bar.replaceChildren(segment("left", Math.min(left, whole), `left: ${count(left)}`), ...parts);
}

function drawFunnel() {
  const live = {
    label: "Curation",
    num_in: clips.length,
    num_out: stock.kept,
    losses: Object.fromEntries(stock.byReason),
    live: true,
  };
  const steps = [...data.funnel, live].map((step) => {
    const item = element("li", step.live ? "live" : "");
    const head = element("div", "funnel-head");
    const label = element("span", "funnel-label", step.label);
    const numbers = element("span", "funnel-numbers", `${count(step.num_in)} → ${count(step.num_out)}`);
    head.append(label, numbers);
    const bar = element("div", "bar");
    bar.setAttribute("aria-hidden", "true");
    const losses = Object.entries(step.losses).filter(([, size]) => size > 0);
    const known = losses.reduce((sum, [, size]) => sum + size, 0);
    drawBar(bar, Math.max(step.num_in - known, 0), step.num_in, losses);
    item.append(head, bar);
    if (losses.length) {
      const list = element("p", "losses");
      losses
        .sort((a, b) => b[1] - a[1])
        .forEach(([reason, size]) => list.append(lossButton(step, reason, size), " "));
      item.append(list);
    }
    return item;
  });
  byId("funnel").replaceChildren(...steps);
}

function lossButton(step, reason, size) {
  const button = element("button", `link ${step.live ? hue(reason) : ""}`);
  button.type = "button";
  button.append(element("bdi", "", reason), ` ${count(size)}`);
  button.title = step.live ? "Show these clips" : "Show these files";
  button.addEventListener("click", () => {
    if (step.live) {
      Object.assign(state, { tab: "clips", show: "all" });
      chosen.reason = new Set([reason]);
    } else {
      openReason = reason;
      Object.assign(state, { tab: "rejects", q: "" });
    }
    showTab();
  });
  return button;
}

const expandedFacets = new Set();

function drawChips() {
  const shows = [
    ["all", "All", clips.length],
    ["kept", "Kept", stock.kept],
    ["dropped", "Dropped", clips.length - stock.kept],
    ["changed", "Changed", stock.gained + stock.lost],
  ];
  const showChips = shows.map(([show, label, size]) =>
    chip(`show ${show}`, label, size, state.show === show, "", () => {
      state.show = show;
    }),
  );
  showChips[3].title = "Differs from what the preset decides";
  fillChips(byId("chips-show"), showChips);
  const facets = { reason: stock.byReason, licence: licenceCounts, tag: tagCounts };
  for (const [facet, counts] of Object.entries(facets)) {
    const values = [...counts.keys()];
    const folded = values.length > CHIPS_SHOWN + 1 && !expandedFacets.has(facet);
    const shown = values.filter((value, v) => !folded || v < CHIPS_SHOWN || chosen[facet].has(value));
    const chips = shown.map((value) =>
      chip(
        `${facet} ${value}`,
        value,
        counts.get(value),
        chosen[facet].has(value),
        facet === "reason" ? hue(value) : "",
        () => {
          if (!chosen[facet].delete(value)) chosen[facet].add(value);
        },
      ),
    );
    if (folded) {
      const more = chip(`more ${facet}`, `${values.length - shown.length} more`, NaN, false, "fold", () =>
        expandedFacets.add(facet),
      );
      chips.push(more);
    }
    fillChips(byId(`chips-${facet}`), chips);
  }
}

function countBy(valuesOf) {
  const counts = new Map();
  for (const clip of clips)
    for (const value of valuesOf(clip)) counts.set(value, (counts.get(value) ?? 0) + 1);
  return new Map([...counts].sort((a, b) => b[1] - a[1]));
}
const licenceCounts = countBy((clip) => [clip.licence]);
const tagCounts = countBy((clip) => new Set(clip.tags));

function chip(key, label, size, pressed, className, choose) {
  const button = element("button", `chip ${className}`);
  button.type = "button";
  button.key = key;
  button.setAttribute("aria-pressed", pressed);
  button.append(element("bdi", "", label || "none"));
  if (!Number.isNaN(size)) button.append(element("span", "num", count(size)));
  button.classList.toggle("zero", size === 0);
  button.addEventListener("click", () => {
    choose();
    scroller.scrollTop = 0;
    refresh();
  });
  return button;
}

/** Replaces a group's chips without taking the focus from the one that was pressed. */
function fillChips(group, chips) {
  const focused = group.contains(document.activeElement) ? document.activeElement.key : null;
  group.replaceChildren(...chips);
  group.hidden = chips.length === 0;
  chips.find((each) => each.key === focused)?.focus();
}

function drawToolbar() {
  const narrowed = found.length !== clips.length;
  byId("found").textContent = `${count(found.length)} of ${count(clips.length)} clips`;
  byId("clear-filters").hidden =
    !narrowed && !state.q && state.show === "all" && FACETS.every((facet) => !chosen[facet].size);
  byId("copy-ids").hidden = found.length === 0;
  byId("sort").value = state.sort;
  setIcon(
    byId("sort-direction"),
    state.dir === "asc" ? "ascending" : "descending",
    state.dir === "asc" ? "Ascending" : "Descending",
  );
  if (document.activeElement !== byId("search")) byId("search").value = state.q;
  byId("size").value = state.size;
  byId("speed").value = String(state.speed);
  document.documentElement.dataset.bg = state.bg;
  for (const input of document.querySelectorAll(".swatches input")) input.checked = input.value === state.bg;
  const narrow = matchMedia("(max-width: 680px)").matches;
  const open = state.rules === "auto" ? !narrow : state.rules === "open";
  document.documentElement.classList.toggle("no-sidebar", !open);
  byId("toggle-rules").setAttribute("aria-expanded", open);
}

function sortBy(key, dir) {
  Object.assign(state, { sort: key, dir, tab: "clips" });
  scroller.scrollTop = 0;
  showTab();
}

function buildToolbar() {
  const group = (label, prefix) => {
    const made = document.createElement("optgroup");
    made.label = label;
    for (const [key, [name]] of sortKeys) if (key.startsWith(prefix)) made.append(new Option(name, key));
    return made;
  };
  byId("sort").append(
    new Option("Order given", "given"),
    new Option("Title", "title"),
    group("Score", "score."),
    group("Closest to the threshold of", "near."),
  );
  document.querySelectorAll(".swatches").forEach((swatches, s) => {
    for (const background of BACKGROUNDS) {
      const label = element("label", `swatch ${background}`);
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: `background-${s}`, value: background });
      input.setAttribute("aria-label", background);
      label.title = `Background: ${background}`;
      label.append(input);
      input.addEventListener("change", () => set("bg", background));
      swatches.append(label);
    }
  });
  byId("sort").addEventListener("change", (event) => sortBy(event.target.value, state.dir));
  byId("sort-direction").addEventListener("click", () =>
    sortBy(state.sort, state.dir === "asc" ? "desc" : "asc"),
  );
  byId("search").addEventListener("input", (event) => {
    scroller.scrollTop = 0;
    set("q", event.target.value);
  });
  byId("size").addEventListener("input", (event) => set("size", event.target.valueAsNumber));
  byId("speed").addEventListener("change", (event) => {
    const media = clock.now();
    set("speed", Number(event.target.value));
    clock.set(media);
  });
  byId("toggle-rules").addEventListener("click", () => {
    set("rules", document.documentElement.classList.contains("no-sidebar") ? "open" : "shut");
  });
  byId("clear-filters").addEventListener("click", () => {
    Object.assign(state, { show: "all", q: "" });
    for (const facet of FACETS) chosen[facet].clear();
    byId("search").value = "";
    refresh();
  });
  byId("copy-ids").addEventListener("click", () =>
    copy(found.map((index) => `${clips[index].id}\n`).join(""), `${count(found.length)} clip ids`),
  );
  byId("copy-yaml").addEventListener("click", () => copy(thresholdsAsYaml(), "the thresholds"));
  byId("reset-rules").addEventListener("click", () => {
    rules.forEach((rule, r) => Object.assign(current[r], { on: true, threshold: rule.threshold }));
    refresh();
  });
  byId("open-help").addEventListener("click", () => byId("help").showModal());
}

function set(name, value) {
  state[name] = value;
  refresh();
}

// -------------------------------------------------------------------------------------------------- one clip

const detail = byId("detail");
const detailPlayer = detail.querySelector(".player");
let detailIndex = -1;
let resumeOnClose = false;

function openDetail(index) {
  if (!detail.open) {
    resumeOnClose = clock.playing;
    detail.showModal();
  }
  if (index !== detailIndex) {
    detailIndex = index;
    startPlayer(detailPlayer, index);
  }
  state.clip = clips[index].id;
  drawDetail();
  followFrame();
  writeAddress();
}

/** Another clip of those found; with none before or after, it stays. */
function stepDetail(step) {
  const position = found.indexOf(detailIndex) + step;
  if (position < 0 || position >= found.length) return;
  grid.active = position;
  openDetail(found[position]);
}

function drawDetail() {
  const clip = clips[detailIndex];
  const failing = failingRules(detailIndex);
  byId("detail-title").firstElementChild.textContent = clip.title;
  const verdict = byId("detail-verdict");
  const badge = failing.length
    ? failing.map((r) => element("span", `badge ${hue(rules[r].reason)}`, rules[r].reason))
    : [element("span", "badge kept", "kept")];
  verdict.replaceChildren(...badge);
  if (failing.length) verdict.append(element("span", "", `dropped: ${cause(failing[0], detailIndex)}`));
  const was = preset[detailIndex];
  if (isChanged(detailIndex))
    verdict.append(
      element("span", "muted", `the preset ${was < 0 ? "keeps it" : `drops it: ${rules[was].reason}`}`),
    );
  const position = found.indexOf(detailIndex);
  byId("detail-position").textContent =
    position < 0 ? "not in this choice" : `${count(position + 1)} of ${count(found.length)}`;
  byId("scrubber").max = clip.frames - 1;
  detailPlayer.style.aspectRatio = `${clip.views}`;
  detailPlayer.style.maxWidth = `calc(var(--player-max) * ${clip.views})`;
  detailPlayer.setAttribute("aria-label", `${clip.views} views of ${clip.title}`);
  drawFacts(clip);
  drawScores(failing);
}

function drawFacts(clip) {
  const id = element("button", "link mono", clip.id);
  id.type = "button";
  id.title = "Copy the id";
  id.addEventListener("click", () => copy(clip.id, "the id"));
  const facts = [
    ["Animation", element("bdi", "", clip.animation)],
    ["Rig", element("bdi", "", `${clip.rig}, ${clip.views} ${clip.views === 1 ? "view" : "views"} shown`)],
    ["Length", element("span", "", `${clip.frames} frames, ${short(clip.fps)} per second`)],
    ["Licence", element("bdi", "", clip.licence || "not stated")],
    ["Author", element("bdi", "", clip.author || "not stated")],
    ["Source", sourceLink(clip.url)],
    ["Tags", element("bdi", "", clip.tags.join(", "))],
    ["Clip", id],
  ];
  byId("facts").replaceChildren(
    ...facts
      .filter(([, value]) => value.textContent)
      .flatMap(([name, value]) => {
        const term = element("dd");
        term.append(value);
        return [element("dt", "", name), term];
      }),
  );
}

/** A link for http and https; anything else is shown as the text it is. */
function sourceLink(text) {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !["http:", "https:"].includes(url.protocol)) return element("bdi", "", text);
  const link = element("a", "", text);
  link.href = url.href;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}

function drawScores(failing) {
  const rows = data.scores.map((score) => {
    const value = columns.get(score)[detailIndex];
    const deciding = rules.flatMap((rule, r) => (rule.score === score ? [r] : []));
    const row = element("tr");
    const name = element("th", "", score);
    name.scope = "row";
    const verdict = element("td", "rule-cell");
    for (const r of deciding) {
      const failed = failing.includes(r);
      const text = current[r].on ? `${rules[r].op} ${short(current[r].threshold)}` : "off";
      const limit = element("span", failed ? `badge ${hue(rules[r].reason)}` : "muted", text);
      limit.title = rules[r].reason;
      verdict.append(...(verdict.firstChild ? [" or ", limit] : [limit]));
    }
    const range = element("td");
    if (deciding.length && !Number.isNaN(value)) range.append(scoreScale(value, deciding, failing));
    row.append(name, element("td", "number", short(value)), range, verdict);
    return row;
  });
  byId("scores").tBodies[0].replaceChildren(...rows);
}

/** Where the value lies between the ends of its first rule, and where the thresholds are. */
function scoreScale(value, deciding, failing) {
  const { low, high } = rules[deciding[0]];
  const percent = (number) => `${100 * clamp((number - low) / (high - low), 0, 1)}%`;
  const scale = element("div", "scale");
  for (const r of deciding) {
    const tick = element("i", `tick ${hue(rules[r].reason)}`);
    tick.style.left = percent(current[r].threshold);
    scale.append(tick);
  }
  const failed = deciding.find((r) => failing.includes(r));
  const dot = element("i", `dot ${failed === undefined ? "kept" : hue(rules[failed].reason)}`);
  dot.style.left = percent(value);
  scale.append(dot);
  return scale;
}

/** Keeps the scrubber on the frame that is playing, as long as the dialog is open. */
let following = 0;
function followFrame() {
  cancelAnimationFrame(following);
  if (!detail.open) return;
  const clip = clips[detailIndex];
  const frame = frameAt(clip, clock.now());
  if (byId("scrubber").valueAsNumber !== frame) byId("scrubber").value = frame;
  const text = `frame ${frame + 1} of ${clip.frames}`;
  if (byId("frame").textContent !== text) byId("frame").textContent = text;
  following = requestAnimationFrame(followFrame);
}

function showFrame(frame) {
  const { frames, fps } = clips[detailIndex];
  const wrapped = (frame + frames) % frames;
  clock.play(false);
  clock.set(((wrapped + 0.5) / fps) * 1000);
}

function closeDetail() {
  if (detailIndex < 0) return;
  stopPlayer(detailPlayer);
  const position = found.indexOf(detailIndex);
  detailIndex = -1;
  state.clip = "";
  clock.play(resumeOnClose);
  writeAddress();
  if (position >= 0 && state.tab === "clips") focusCard(position);
}

function buildDetail() {
  detail.addEventListener("close", closeDetail);
  byId("scrubber").addEventListener("input", (event) => showFrame(event.target.valueAsNumber));
  const acts = {
    previous: () => stepDetail(-1),
    next: () => stepDetail(1),
    play: () => clock.play(!clock.playing),
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-act]");
    if (button?.dataset.act === "close") button.closest("dialog").close();
    else if (button) acts[button.dataset.act]();
    else if (event.target.matches("dialog") && isOutside(event)) event.target.close();
  });
}

function isOutside(event) {
  const box = event.target.getBoundingClientRect();
  return (
    event.clientX < box.left ||
    event.clientX > box.right ||
    event.clientY < box.top ||
    event.clientY > box.bottom
  );
}

// -------------------------------------------------------------------------------------------- never rendered

let openReason = "";
let rejectsDrawn = null; // what the panel was last drawn for

function drawRejects() {
  const words = searchWords();
  const key = `${state.q}\n${openReason}`;
  if (rejectsDrawn === key) return;
  rejectsDrawn = key;
  const groups = new Map();
  for (const reject of data.rejects) {
    const text = `${reject.name}\n${reject.stage}\n${reject.reason}\n${reject.detail}`.toLowerCase();
    if (!words.every((word) => text.includes(word))) continue;
    if (!groups.has(reject.reason)) groups.set(reject.reason, []);
    groups.get(reject.reason).push(reject);
  }
  const ordered = [...groups].sort((a, b) => b[1].length - a[1].length);
  const shown = ordered.reduce((sum, [, rejects]) => sum + rejects.length, 0);
  const intro = element(
    "p",
    "found",
    `${count(shown)} of ${count(data.rejects.length)} files and animations that never became a clip, by reason`,
  );
  const most = ordered[0]?.[1].length ?? 1;
  byId("panel-rejects").replaceChildren(
    intro,
    ...ordered.map(([reason, rejects]) => rejectGroup(reason, rejects, most)),
  );
  if (!ordered.length)
    byId("panel-rejects").append(
      element("p", "empty", data.rejects.length ? "Nothing matches the search." : "Everything was rendered."),
    );
  if (openReason) byId("panel-rejects").querySelector("details[open]")?.scrollIntoView({ block: "start" });
}

function rejectGroup(reason, rejects, most) {
  const group = element("details", "reject");
  const summary = document.createElement("summary");
  const bar = element("span", "amount");
  bar.style.setProperty("--amount", `${(100 * rejects.length) / most}%`);
  const advices = new Set(rejects.map((reject) => reject.advice));
  const common = advices.size === 1 ? rejects[0].advice : "";
  const label = element("span", "reject-reason");
  label.append(element("bdi", "", reason));
  summary.append(
    label,
    element("span", "number", count(rejects.length)),
    bar,
    element("span", "advice", common),
  );
  group.append(summary);
  let body = null;
  const showMore = (event) => {
    event?.target.remove();
    const from = body.rows.length;
    for (const reject of rejects.slice(from, from + REJECTS_SHOWN)) {
      const row = body.insertRow();
      for (const text of [reject.name, reject.stage, reject.detail, ...(common ? [] : [reject.advice])])
        row.insertCell().append(element("bdi", "", text));
    }
    const rest = rejects.length - body.rows.length;
    if (rest <= 0) return;
    const button = element(
      "button",
      "quiet",
      `Show ${count(Math.min(rest, REJECTS_SHOWN))} more of ${count(rest)}`,
    );
    button.type = "button";
    button.addEventListener("click", showMore);
    group.append(button);
  };
  const fill = () => {
    if (body || !group.open) return;
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of ["File", "Stage", "Detail", ...(common ? [] : ["Advice"])])
      head.append(element("th", "", name));
    body = table.createTBody();
    group.append(table);
    showMore();
  };
  group.addEventListener("toggle", fill);
  group.open = searchWords().length > 0 || (openReason ? reason === openReason : rejects.length === most);
  fill();
  return group;
}

function showTab() {
  for (const name of ["clips", "rejects"]) {
    const selected = state.tab === name;
    byId(`tab-${name}`).setAttribute("aria-selected", selected);
    byId(`tab-${name}`).tabIndex = selected ? 0 : -1;
    byId(`panel-${name}`).hidden = !selected;
  }
  document.documentElement.dataset.tab = state.tab;
  byId("search").placeholder =
    `Search ${state.tab === "clips" ? "title, animation, author, id" : "file, stage, reason, detail"}…`;
  refresh();
}

// -------------------------------------------------------------------------------------------------- keyboard

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target === byId("search") && event.key === "Escape") {
    target.blur();
    return;
  }
  if (target.matches?.("[role=tab]") && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    state.tab = state.tab === "clips" ? "rejects" : "clips";
    showTab();
    byId(`tab-${state.tab}`).focus();
    return;
  }
  // Fields keep their own keys; a slider has no use for these.
  if (
    target.matches?.("input, select, textarea") &&
    !(target.type === "range" && " ,./?".includes(event.key))
  )
    return;
  const openDialog = document.querySelector("dialog[open]");
  const handled = openDialog ? openDialog === detail && detailKey(event) : pageKey(event);
  if (handled) event.preventDefault();
}

function detailKey(event) {
  const frame = byId("scrubber").valueAsNumber;
  const keys = {
    ArrowLeft: () => stepDetail(-1),
    ArrowRight: () => stepDetail(1),
    ",": () => showFrame(frame - 1),
    ".": () => showFrame(frame + 1),
    " ": () => clock.play(!clock.playing),
  };
  if (event.key === " " && event.target.matches("button, a")) return false;
  keys[event.key]?.();
  return event.key in keys;
}

function pageKey(event) {
  const onCard = event.target.closest?.(".card");
  if (event.key === "/") {
    byId("search").focus();
    byId("search").select();
    return true;
  }
  if (event.key === "?") {
    byId("help").showModal();
    return true;
  }
  if (event.key === " " && (onCard || !event.target.matches?.("button, a, summary"))) {
    clock.play(!clock.playing);
    return true;
  }
  if (state.tab !== "clips" || (event.target !== document.body && !onCard && event.target !== scroller))
    return false;
  const page = Math.max(1, Math.floor(scroller.clientHeight / grid.rowPx)) * grid.columns;
  const steps = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -grid.columns,
    ArrowDown: grid.columns,
    PageUp: -page,
    PageDown: page,
    Home: -Infinity,
    End: Infinity,
  };
  if (!(event.key in steps)) return false;
  const inSight = Math.min(
    ...[...cards.values()]
      .filter((card) => card.offsetTop >= scroller.scrollTop)
      .map((card) => card.position),
  );
  focusCard(
    onCard
      ? onCard.position + steps[event.key]
      : Number.isFinite(steps[event.key])
        ? inSight
        : grid.active + steps[event.key],
  );
  return true;
}

// ----------------------------------------------------------------------------------------------------- start

function applyAddress() {
  const before = state.speed;
  const media = clock.now();
  readAddress();
  if (before !== state.speed) clock.set(media);
  byId("search").value = state.q;
  if (!["clips", "rejects"].includes(state.tab)) state.tab = PLAIN_STATE.tab;
  const index = state.clip ? clips.findIndex((clip) => clip.id === state.clip) : -1;
  showTab();
  if (index >= 0) openDetail(index);
  else if (detail.open) detail.close();
}

byId("loading").textContent = clips.length ? "No clip matches." : "There are no clips.";
byId("preset").textContent = data.preset;
byId("num-rejects").textContent = count(data.rejects.length);
buildToolbar();
buildDetail();
drawTransport();
for (const name of ["clips", "rejects"]) {
  byId(`tab-${name}`).addEventListener("click", () => {
    state.tab = name;
    showTab();
  });
}
scroller.addEventListener("scroll", drawGridSoon, { passive: true });
new ResizeObserver(drawGridSoon).observe(scroller);
gridElement.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  grid.active = card.position;
  openDetail(card.index);
});
gridElement.addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (card) grid.active = card.position;
});
// On a card the space bar plays and pauses. Firefox still presses the button when it is let go.
gridElement.addEventListener("keyup", (event) => event.key === " " && event.preventDefault());
document.addEventListener("keydown", onKey);
addEventListener("hashchange", applyAddress);
matchMedia("(max-width: 680px)").addEventListener("change", refresh);
applyAddress();
