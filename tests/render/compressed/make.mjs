// Makes the files beside it with the encoders of the formats' authors. For developers, and only when a case is added:
//   npm install @gltf-transform/core@4 @gltf-transform/extensions@4 @gltf-transform/functions@4 meshoptimizer@1.3.0 \
//     ktx2-encoder@0.6.0 draco3dgltf@1 sharp && node make.mjs
// All content is made here, and is CC0-1.0.
import { Document, NodeIO } from '@gltf-transform/core';
import { ALL_EXTENSIONS } from '@gltf-transform/extensions';
import { draco, meshopt, quantize } from '@gltf-transform/functions';
import { encodeToKTX2 } from 'ktx2-encoder';
import { MeshoptDecoder, MeshoptEncoder } from 'meshoptimizer';
import { MeshoptDecoder as ReferenceDecoder } from './node_modules/meshoptimizer/meshopt_decoder_reference.js';
import draco3d from 'draco3dgltf';
import fs from 'node:fs';
import sharp from 'sharp';

await MeshoptEncoder.ready;
await MeshoptDecoder.ready;
const io = new NodeIO().registerExtensions(ALL_EXTENSIONS).registerDependencies({
	'meshopt.encoder': MeshoptEncoder,
	'meshopt.decoder': MeshoptDecoder,
	'draco3d.encoder': await draco3d.createEncoderModule(),
});

// A skinned sheet of 9 x 9 points with a morph target, and three animations.
function sheet() {
	const document = new Document();
	const buffer = document.createBuffer();
	const accessor = (type, array) => document.createAccessor().setType(type).setArray(array).setBuffer(buffer);
	const side = 9;
	const positions = [], normals = [], uvs = [], raised = [], joints = [], weights = [], indices = [];
	for (let row = 0; row < side; ++row)
		for (let column = 0; column < side; ++column) {
			const [x, y] = [column / (side - 1), row / (side - 1)];
			positions.push(x - 0.5, 2 * y, 0.1 * Math.sin(5 * x));
			const slope = -0.5 * Math.cos(5 * x), length = Math.hypot(slope, 1);
			normals.push(slope / length, 0, 1 / length);
			uvs.push(x, 1 - y);
			raised.push(0, 0, 0.5 * x * y);
			joints.push(0, 1, 0, 0);
			weights.push(1 - y, y, 0, 0);
		}
	for (let row = 0; row + 1 < side; ++row)
		for (let column = 0; column + 1 < side; ++column) {
			const corner = row * side + column;
			indices.push(corner, corner + 1, corner + side, corner + 1, corner + side + 1, corner + side);
		}
	const target = document.createPrimitiveTarget().setAttribute('POSITION', accessor('VEC3', new Float32Array(raised)));
	const primitive = document.createPrimitive()
		.setAttribute('POSITION', accessor('VEC3', new Float32Array(positions)))
		.setAttribute('NORMAL', accessor('VEC3', new Float32Array(normals)))
		.setAttribute('TEXCOORD_0', accessor('VEC2', new Float32Array(uvs)))
		.setAttribute('JOINTS_0', accessor('VEC4', new Uint8Array(joints)))
		.setAttribute('WEIGHTS_0', accessor('VEC4', new Float32Array(weights)))
		.setIndices(accessor('SCALAR', new Uint16Array(indices)))
		.setMaterial(document.createMaterial('sheet').setDoubleSided(true).setBaseColorFactor([0.8, 0.3, 0.1, 1]))
		.addTarget(target);
	const tip = document.createNode('tip').setTranslation([0, 1, 0]);
	const root = document.createNode('root').addChild(tip);
	const skin = document.createSkin().addJoint(root).addJoint(tip).setSkeleton(root).setInverseBindMatrices(
		accessor('MAT4', new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1,
			1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, -1, 0, 1])));
	const mesh = document.createMesh('sheet').addPrimitive(primitive).setWeights([0]);
	const node = document.createNode('sheet').setMesh(mesh).setSkin(skin);
	document.createScene().addChild(root).addChild(node);
	const animate = (name, path, onto, type, valueAt) => {
		const times = Array.from({ length: 17 }, (_, key) => key / 8);
		const sampler = document.createAnimationSampler()
			.setInput(accessor('SCALAR', new Float32Array(times)))
			.setOutput(accessor(type, new Float32Array(times.flatMap(valueAt))));
		const channel = document.createAnimationChannel().setTargetNode(onto).setTargetPath(path).setSampler(sampler);
		document.createAnimation(name).addSampler(sampler).addChannel(channel);
	};
	animate('bend', 'rotation', tip, 'VEC4', (time) => [Math.sin(0.6 * Math.sin(3 * time)), 0, 0, Math.cos(0.6 * Math.sin(3 * time))]);
	animate('swell', 'weights', node, 'SCALAR', (time) => [0.5 - 0.5 * Math.cos(3 * time)]);
	animate('slide', 'translation', root, 'VEC3', (time) => [Math.sin(2 * time), 0, 0.3 * time]);
	return document;
}

// The same file with every buffer view compressed as it is, under the name of the newer extension.
function compressedViews(glb) {
	const text = Buffer.from(glb).subarray(20, 20 + glb.readUInt32LE(12)).toString();
	const root = JSON.parse(text), binary = glb.subarray(28 + glb.readUInt32LE(12));
	const size = { 5121: 1, 5123: 2, 5125: 4, 5126: 4 }, width = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4, MAT4: 16 };
	const views = [], chunks = [];
	let place = 0, decoded = 0;
	for (const accessor of root.accessors) {
		const view = root.bufferViews[accessor.bufferView];
		const item = size[accessor.componentType] * width[accessor.type], stride = view.byteStride ?? item;
		const isIndex = root.meshes.some((mesh) => mesh.primitives.some((part) => part.indices === root.accessors.indexOf(accessor)));
		const padded = isIndex ? item : (item + 3) & ~3;
		const plain = new Uint8Array(accessor.count * padded);
		const offset = (view.byteOffset ?? 0) + (accessor.byteOffset ?? 0);
		for (let index = 0; index < accessor.count; ++index)
			plain.set(binary.subarray(offset + index * stride, offset + index * stride + item), index * padded);
		const mode = isIndex ? 'TRIANGLES' : 'ATTRIBUTES';
		const coded = MeshoptEncoder.encodeGltfBuffer(plain, accessor.count, padded, mode, 1);
		const settings = { buffer: 1, byteOffset: place, byteLength: coded.length, byteStride: padded, count: accessor.count, mode };
		const entry = { buffer: 0, byteOffset: decoded, byteLength: plain.length, extensions: { KHR_meshopt_compression: settings } };
		if (view.byteStride) entry.byteStride = padded;
		accessor.bufferView = views.push(entry) - 1;
		delete accessor.byteOffset;
		chunks.push(coded, new Uint8Array(-coded.length & 3));
		place += (coded.length + 3) & ~3;
		decoded += (plain.length + 3) & ~3;
	}
	const data = Buffer.concat(chunks);
	root.bufferViews = views;
	root.buffers = [
		{ byteLength: decoded, extensions: { KHR_meshopt_compression: { fallback: true } } },
		{ byteLength: data.length, uri: `data:application/octet-stream;base64,${data.toString('base64')}` },
	];
	root.extensionsUsed = root.extensionsRequired = ['KHR_meshopt_compression'];
	return Buffer.from(JSON.stringify(root));
}

// One stream for each mode and filter, with what the author's reference decoder in JavaScript makes of it.
function streams() {
	const random = (seed) => () => ((seed = (seed * 16807) % 2147483647) / 2147483647) * 2 - 1;
	const draw = random(7), count = 13, found = [];
	const unit = (length) => {
		const vector = Array.from({ length }, draw), norm = Math.hypot(...vector);
		return vector.map((value) => value / norm);
	};
	const add = (mode, filter, stride, plain, version = 0) => {
		const number = plain.length / stride;
		const coded = MeshoptEncoder.encodeGltfBuffer(plain, number, stride, mode, version);
		const decoded = new Uint8Array(plain.length);
		ReferenceDecoder.decodeGltfBuffer(decoded, number, stride, coded, mode, filter);
		const hex = (bytes) => Buffer.from(bytes).toString('hex');
		found.push({ mode, filter, byteStride: stride, count: number, version, coded: hex(coded), decoded: hex(decoded) });
	};
	const bytes = (length) => Uint8Array.from({ length }, (_, index) => (index * 7 + 40 * draw()) & 255);
	const vectors = (length) => new Float32Array(Array.from({ length: count }, () => unit(length)).flat());
	const normals = new Float32Array(Array.from({ length: count }, () => [...unit(3), 1]).flat());
	for (const version of [0, 1]) {
		add('ATTRIBUTES', 'NONE', 4, bytes(4 * 300), version);
		add('ATTRIBUTES', 'OCTAHEDRAL', 4, MeshoptEncoder.encodeFilterOct(normals, count, 4, 8), version);
		add('ATTRIBUTES', 'OCTAHEDRAL', 8, MeshoptEncoder.encodeFilterOct(normals, count, 8, 12), version);
		add('ATTRIBUTES', 'QUATERNION', 8, MeshoptEncoder.encodeFilterQuat(vectors(4), count, 8, 12), version);
		add('ATTRIBUTES', 'EXPONENTIAL', 12, MeshoptEncoder.encodeFilterExp(vectors(3), count, 12, 15), version);
	}
	const colours = Float32Array.from({ length: 4 * count }, () => 0.5 + 0.5 * draw());
	add('ATTRIBUTES', 'COLOR', 4, MeshoptEncoder.encodeFilterColor(colours, count, 4, 8), 1);
	add('ATTRIBUTES', 'COLOR', 8, MeshoptEncoder.encodeFilterColor(colours, count, 8, 12), 1);
	const faces = [0, 1, 2, 2, 1, 3, 4, 5, 6, 0, 2, 70000 % 9, 8, 7, 6];
	add('TRIANGLES', 'NONE', 2, new Uint8Array(new Uint16Array(faces).buffer));
	add('TRIANGLES', 'NONE', 4, new Uint8Array(new Uint32Array(faces).buffer));
	add('INDICES', 'NONE', 2, new Uint8Array(new Uint16Array(faces).buffer));
	add('INDICES', 'NONE', 4, new Uint8Array(new Uint32Array([...faces, 70000]).buffer));
	return found;
}

// Soft colours with a soft alpha, and normals: 22 x 14 pixels, which is no multiple of a block.
async function pictures() {
	const [width, height] = [22, 14];
	const colours = Buffer.alloc(4 * width * height), normals = Buffer.alloc(3 * width * height);
	for (let row = 0; row < height; ++row)
		for (let column = 0; column < width; ++column) {
			const [x, y] = [column / (width - 1), row / (height - 1)], at = row * width + column;
			colours.set([40 + 200 * x, 60 + 150 * y, 200 - 150 * x, 80 + 170 * y].map(Math.round), 4 * at);
			const [dx, dy] = [0.4 * (x - 0.5), 0.4 * (y - 0.5)], norm = Math.hypot(dx, dy, 1);
			normals.set([dx / norm, dy / norm, 1 / norm].map((value) => Math.round(127.5 + 127.5 * value)), 3 * at);
		}
	const png = (data, channels) => sharp(data, { raw: { width, height, channels } }).png().toBuffer();
	fs.writeFileSync('colours.png', await png(colours, 4));
	fs.writeFileSync('normals.png', await png(normals, 3));
	const imageDecoder = async (buffer) => {
		const { data, info } = await sharp(buffer).ensureAlpha().raw().toBuffer({ resolveWithObject: true });
		return { width: info.width, height: info.height, data: new Uint8Array(data) };
	};
	const encode = async (from, to, options) => {
		const common = { imageDecoder, isKTX2File: true, qualityLevel: 255, uastcLDRQualityLevel: 2 };
		fs.writeFileSync(to, await encodeToKTX2(new Uint8Array(fs.readFileSync(from)), { ...common, ...options }));
	};
	const linear = { isNormalMap: true, isPerceptual: false, isSetKTX2SRGBTransferFunc: false };
	const colour = { isPerceptual: true, isSetKTX2SRGBTransferFunc: true };
	await encode('colours.png', 'colours_etc1s.ktx2', { ...colour, isUASTC: false, generateMipmap: false });
	await encode('colours.png', 'colours_etc1s_mips.ktx2', { ...colour, isUASTC: false, generateMipmap: true });
	await encode('colours.png', 'colours_uastc.ktx2', { ...colour, isUASTC: true, needSupercompression: false, generateMipmap: false });
	await encode('colours.png', 'colours_uastc_zstd_mips.ktx2', { ...colour, isUASTC: true, needSupercompression: true, generateMipmap: true });
	await encode('normals.png', 'normals_etc1s.ktx2', { ...linear, isUASTC: false, generateMipmap: true });
	await encode('normals.png', 'normals_uastc_zstd.ktx2', { ...linear, isUASTC: true, needSupercompression: true, generateMipmap: true });
}

const plain = Buffer.from(await io.writeBinary(sheet()));
fs.writeFileSync('sheet.glb', plain);
fs.writeFileSync('sheet_khr_meshopt.gltf', compressedViews(plain));
for (const [name, change] of [
	['ext_meshopt', meshopt({ encoder: MeshoptEncoder, level: 'high' })], ['quantized', quantize()], ['draco', draco()],
]) {
	const variant = sheet();
	await variant.transform(change);
	fs.writeFileSync(`sheet_${name}.glb`, await io.writeBinary(variant));
}
fs.writeFileSync('streams.json', JSON.stringify(streams(), null, '\t') + '\n');
await pictures();
