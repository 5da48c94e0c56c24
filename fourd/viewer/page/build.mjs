// Bundles the page's program: `make viewer`. What it writes is checked in, so that using it needs no Node.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const SOURCES = ["package-lock.json", "splats.js", "viewer.js"];
const PACKAGES = ["three", "@sparkjsdev/spark", "fflate"];
const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");

const versions = PACKAGES.map((name) => {
  const { version, license } = JSON.parse(read(`node_modules/${name}/package.json`));
  return `${name} ${version} (${license})`;
});
const sources = createHash("sha256").update(SOURCES.map(read).join("\0")).digest("hex");
await build({
  entryPoints: ["viewer.js"],
  absWorkingDir: import.meta.dirname,
  outfile: "../viewer.min.js",
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
  banner: { js: `/* ${versions.join(", ")}. Licences: fourd/viewer/LICENSES.txt. Sources: ${sources} */` },
});
const licences = PACKAGES.map((name, index) => `${versions[index]}\n\n${read(`node_modules/${name}/LICENSE`).trim()}\n`);
writeFileSync(new URL("../LICENSES.txt", import.meta.url), licences.join(`\n${"-".repeat(80)}\n\n`));
