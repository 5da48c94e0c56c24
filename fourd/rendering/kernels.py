"""The loops of the CPU rasterizer, compiled by numba: projection and splatting, each forward and backward.

A kernel works on a range of Gaussians or of images and holds no lock, so threads can share the work; what it writes
depends on nothing but its own range, so the number of threads changes no bit of the result. All arrays are float32 and
contiguous unless said otherwise. The first call compiles (some 10 s); numba keeps the result on disk.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

ALPHA_MIN = np.float32(1 / 255)
"""A Gaussian does not count in a pixel where its alpha is less."""
ALPHA_MAX = np.float32(0.999)
TRANSMITTANCE_MIN = np.float32(1e-4)
"""A pixel takes no more Gaussians once it would let less than this through."""

_ONE: Any = np.float32(1.0)
_ZERO: Any = np.float32(0.0)
_EXPONENT_BIAS = np.float32(127.0)
_MANTISSA = np.float32(2**23)
# 2^-f for f in 0..1, Chebyshev fit: relative error 1e-7, which is that of float32.
_P0 = np.float32(0.9999999452374335)
_P1 = np.float32(-0.6931432016425467)
_P2 = np.float32(0.2401794894888162)
_P3 = np.float32(-0.055299607117308615)
_P4 = np.float32(0.009210875560676695)
_P5 = np.float32(-0.0009475536455033639)

# Sums may be reordered, so that they run in SIMD lanes. Not "fast": NaN keeps its meaning.
_SIMD = {"reassoc", "contract", "nsz", "arcp"}
_KERNEL: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": _SIMD}
_HELPER: dict[str, Any] = {"error_model": "numpy", "fastmath": _SIMD}


@intrinsic
def _float_with_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 that has the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@njit(**_HELPER)
def _alphas(out: Any, ramp: Any, start: Any, curve: Any, least: Any, opacity: Any, length: int) -> None:
    """Opacity times the Gaussian along a row of pixels, not yet clamped.

    Its exponent is quadratic along a row: log2 of the Gaussian is -(curve u^2 + least), where u = ramp + start.
    """
    for i in range(length):
        u = ramp[i] + start
        z = curve * u * u + least
        whole = np.float32(np.int32(z))
        f = z - whole
        mantissa = _P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * _P5))))
        out[i] = opacity * mantissa * _float_with_bits(np.int32((_EXPONENT_BIAS - whole) * _MANTISSA))  # type: ignore[call-arg]


@njit(**_HELPER)
def _row(shape: Any, row: int, width: int) -> tuple[int, int, float, float, float]:
    """The pixels of a row that a Gaussian reaches with alpha >= 1/255.

    Returns:
        First pixel and past the last one, x of the row's largest alpha, height of the row's middle below the Gaussian's
        (negative: below), and the least exponent in the row.
    """
    x, y, a, b, c, reach = shape
    dy = y - (row + 0.5)
    centre = x + b * dy / a
    least = 0.5 * (c - b * b / a) * dy * dy
    half = np.sqrt(max(0.0, 2.0 * (reach - least) / a))
    first = max(0, int(np.ceil(max(-1.0, centre - half - 0.5))))
    past = min(width, int(np.floor(min(width + 1.0, centre + half - 0.5))) + 1)
    return first, past, centre, dy, least


@njit(**_HELPER)
def _rows(shape: Any, height: int) -> tuple[int, int]:
    """First row that a Gaussian reaches, and past the last."""
    _, y, a, b, c, reach = shape
    half = np.sqrt(2.0 * reach * a / (a * c - b * b))
    first = max(0, int(np.ceil(max(-1.0, y - half - 0.5))))
    return first, min(height, int(np.floor(min(height + 1.0, y + half - 0.5))) + 1)


@njit(**_HELPER)
def _shape(mean: Any, conic: Any, opacity: Any) -> tuple[float, float, float, float, float, float]:
    """Centre, conic and the exponent at which alpha has fallen to 1/255 (and a little more, for rounding)."""
    a, b, c = float(conic[0]), float(conic[1]), float(conic[2])
    return float(mean[0]), float(mean[1]), a, b, c, np.log(255.0 * float(opacity)) * (1 + 1e-6) + 1e-6


_FLOATS = "float32[:,:,::1]"
_LOG2E = 1.4426950408889634


@njit(
    f"void(int64, int64, {_FLOATS}, {_FLOATS}, {_FLOATS}, float32[:,::1], int64[:,::1], int64[::1], "
    f"float32[:,:,:,::1], {_FLOATS}, int32[:,:,::1])",
    **_KERNEL,
)
def splat(
    first_image: int,
    past_image: int,
    means2d: Any,
    conics: Any,
    colors: Any,
    opacities: Any,
    order: Any,
    num_visible: Any,
    out: Any,
    transmittance: Any,
    last: Any,
) -> None:
    """Draw images, Gaussian by Gaussian from front to back.

    Args:
        first_image: Of the range.
        past_image: Of the range.
        means2d: Shape (image, gaussian, 2), pixels.
        conics: Shape (image, gaussian, 3), inverse of the covariance: xx, xy, yy.
        colors: Shape (image, gaussian, channel).
        opacities: Shape (image, gaussian).
        order: Shape (image, gaussian), int64, Gaussians by depth.
        num_visible: Shape (image,), int64; only the first ones of `order` are drawn.
        out: Shape (image, channel, height, width), zeros; gets the colours without background.
        transmittance: Shape (image, height, width), ones; gets what the Gaussians let through.
        last: Shape (image, height, width), int32; gets the place in `order` of the last Gaussian that counted, or -1.
    """
    num_channels, height, width = out.shape[1:]
    ramp = np.arange(width).astype(np.float32)
    alphas, weights = np.empty(width, np.float32), np.empty(width, np.float32)
    for image in range(first_image, past_image):
        for place in range(num_visible[image]):
            which = order[image, place]
            opacity = opacities[image, which]
            shape = _shape(means2d[image, which], conics[image, which], opacity)
            color = colors[image, which]
            number = np.int32(place)
            first_row, past_row = _rows(shape, height)
            for row in range(first_row, past_row):
                first, past, centre, _, least = _row(shape, row, width)
                length = past - first
                if length <= 0:
                    continue
                start, curve = np.float32(first + 0.5 - centre), np.float32(0.5 * _LOG2E * shape[2])
                _alphas(alphas, ramp, start, curve, np.float32(_LOG2E * least), opacity, length)
                light = transmittance[image, row, first:past]
                ends = last[image, row, first:past]
                for i in range(length):
                    alpha = min(alphas[i], ALPHA_MAX)
                    before = light[i]
                    after = before * (_ONE - alpha)
                    # A pixel that is done keeps its transmittance with a minus sign.
                    counts = (alpha >= ALPHA_MIN) & (before > _ZERO)
                    goes_on = counts & (after > TRANSMITTANCE_MIN)
                    weights[i] = alpha * before if goes_on else _ZERO
                    light[i] = after if goes_on else (-before if counts else before)
                    ends[i] = number if goes_on else ends[i]
                for channel in range(num_channels):
                    value = color[channel]
                    target = out[image, channel, row, first:past]
                    for i in range(length):
                        target[i] += weights[i] * value
        for row in range(height):
            for column in range(width):
                transmittance[image, row, column] = abs(transmittance[image, row, column])


@njit(
    f"void(int64, int64, {_FLOATS}, {_FLOATS}, {_FLOATS}, float32[:,::1], int64[:,::1], int64[::1], {_FLOATS}, "
    f"int32[:,:,::1], float32[:,:,:,::1], {_FLOATS}, {_FLOATS}, {_FLOATS}, {_FLOATS}, {_FLOATS}, float32[:,::1])",
    **_KERNEL,
)
def splat_backward(
    first_image: int,
    past_image: int,
    means2d: Any,
    conics: Any,
    colors: Any,
    opacities: Any,
    order: Any,
    num_visible: Any,
    transmittance: Any,
    last: Any,
    grad_out: Any,
    behind: Any,
    grad_means2d: Any,
    grad_means2d_abs: Any,
    grad_conics: Any,
    grad_colors: Any,
    grad_opacities: Any,
) -> None:
    """Gradients of `splat`, from back to front.

    A pixel needs two numbers: what is let through so far, and the gradient's product with all that lies behind.

    Args:
        first_image: Of the range.
        past_image: Of the range.
        means2d: As for `splat`; so are the next ones.
        conics: -
        colors: -
        opacities: -
        order: -
        num_visible: -
        transmittance: As `splat` left it; used up.
        last: As `splat` left it.
        grad_out: Shape (image, channel, height, width).
        behind: Shape (image, height, width): transmittance times its gradient; used up.
        grad_means2d: Zeros; gets the gradient.
        grad_means2d_abs: The same of absolute values a pixel, or no images: then it is not computed.
        grad_conics: Zeros; gets the gradient.
        grad_colors: Zeros; gets the gradient.
        grad_opacities: Zeros; gets the gradient.
    """
    num_channels, height, width = grad_out.shape[1:]
    absolute = grad_means2d_abs.shape[0] > 0
    ramp = np.arange(width).astype(np.float32)
    alphas, weights, products = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for image in range(first_image, past_image):
        for place in range(num_visible[image] - 1, -1, -1):
            which = order[image, place]
            opacity = opacities[image, which]
            shape = _shape(means2d[image, which], conics[image, which], opacity)
            x, _, a, b, c, _ = shape
            color, grad_color = colors[image, which], grad_colors[image, which]
            number = np.int32(place)
            of_opacity, of_x, of_y, of_a, of_b, of_c, abs_x, abs_y = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            first_row, past_row = _rows(shape, height)
            for row in range(first_row, past_row):
                first, past, centre, dy, least = _row(shape, row, width)
                length = past - first
                if length <= 0:
                    continue
                start, curve = np.float32(first + 0.5 - centre), np.float32(0.5 * _LOG2E * a)
                _alphas(alphas, ramp, start, curve, np.float32(_LOG2E * least), opacity, length)
                products[:length] = _ZERO
                for channel in range(num_channels):
                    value = color[channel]
                    source = grad_out[image, channel, row, first:past]
                    for i in range(length):
                        products[i] += value * source[i]
                light = transmittance[image, row, first:past]
                back = behind[image, row, first:past]
                ends = last[image, row, first:past]
                # Moments of the gradient by the exponent, with offsets from the row's centre.
                moment0, moment1, moment2 = _ZERO, _ZERO, _ZERO
                for i in range(length):
                    alpha = min(alphas[i], ALPHA_MAX)
                    counts = (alpha >= ALPHA_MIN) & (number <= ends[i])
                    inverse = _ONE / (_ONE - alpha)
                    before = light[i] * inverse
                    weight = alpha * before if counts else _ZERO
                    of_alpha = before * products[i] - inverse * back[i]
                    slope = -alpha * of_alpha if counts & (alphas[i] <= ALPHA_MAX) else _ZERO
                    light[i] = before if counts else light[i]
                    back[i] += weight * products[i]
                    weights[i] = weight
                    alphas[i] = slope
                    u = ramp[i] + start
                    moment0 += slope
                    moment1 += slope * u
                    moment2 += slope * u * u
                for channel in range(num_channels):
                    source = grad_out[image, channel, row, first:past]
                    total = _ZERO
                    for i in range(length):
                        total += weights[i] * source[i]
                    grad_color[channel] += total
                shift = x - centre
                tilt = (c - b * b / a) * dy
                of_opacity -= moment0
                of_x -= a * moment1
                of_y += tilt * moment0 - b * moment1
                of_a += 0.5 * (shift * shift * moment0 - 2.0 * shift * moment1 + moment2)
                of_b += dy * (shift * moment0 - moment1)
                of_c += 0.5 * dy * dy * moment0
                if absolute:
                    slant, steep = np.float32(b), np.float32(tilt)
                    sum_x, sum_y = _ZERO, _ZERO
                    for i in range(length):
                        u = ramp[i] + start
                        sum_x += abs(alphas[i] * u)
                        sum_y += abs(alphas[i] * (steep - slant * u))
                    abs_x += a * sum_x
                    abs_y += sum_y
            grad_means2d[image, which, 0] = of_x
            grad_means2d[image, which, 1] = of_y
            grad_conics[image, which, 0] = of_a
            grad_conics[image, which, 1] = of_b
            grad_conics[image, which, 2] = of_c
            grad_opacities[image, which] = of_opacity / opacity
            if absolute:
                grad_means2d_abs[image, which, 0] = abs_x
                grad_means2d_abs[image, which, 1] = abs_y


@njit(**_HELPER)
def _rotation(quat: Any, out: Any) -> float:
    """Write the rotation matrix of a quaternion (w first, any length) to `out`; gives 1 / length."""
    w, x, y, z = float(quat[0]), float(quat[1]), float(quat[2]), float(quat[3])
    inverse = 1.0 / np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return inverse


@njit(**_HELPER)
def _covariance(rotation: Any, scale: Any, out: Any) -> None:
    """R diag(scale)^2 R^T, as Gaussians have it (Kerbl et al. 2023, eq. 6)."""
    for i in range(3):
        for j in range(3):
            total = 0.0
            for k in range(3):
                total += rotation[i, k] * rotation[j, k] * float(scale[k]) * float(scale[k])
            out[i, j] = total


@njit(**_HELPER)
def _camera_rows(mean: Any, view: Any, K: Any, width: int, height: int, point: Any, rows: Any) -> tuple[bool, bool]:
    """The point in the camera's space, and J W of the affine approximation (Zwicker et al. 2001), shape (2, 3).

    The direction at which J is taken is held to 1.3 times the field of view, as splatting does.

    Returns:
        Whether it was held in x, and in y.
    """
    for i in range(3):
        point[i] = float(view[i, 3])
        for j in range(3):
            point[i] += float(view[i, j]) * float(mean[j])
    fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    u, v = point[0] / point[2], point[1] / point[2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    held_u = min((width - cx) / fx + margin_x, max(-cx / fx - margin_x, u))
    held_v = min((height - cy) / fy + margin_y, max(-cy / fy - margin_y, v))
    for j in range(3):
        rows[0, j] = fx / point[2] * (float(view[0, j]) - held_u * float(view[2, j]))
        rows[1, j] = fy / point[2] * (float(view[1, j]) - held_v * float(view[2, j]))
    return held_u != u, held_v != v


@njit(
    f"void(int64, int64, {_FLOATS}, {_FLOATS}, {_FLOATS}, float32[:,::1], float32[:,:,:,::1], float32[:,:,:,::1], "
    "int64, int64, float64, float64, float64, float64, int32[:,:,:,::1], float32[:,:,:,::1], float32[:,:,::1], "
    "float32[:,:,:,::1])",
    **_KERNEL,
)
def project(
    first: int,
    past: int,
    means: Any,
    quats: Any,
    scales: Any,
    opacities: Any,
    views: Any,
    Ks: Any,
    width: int,
    height: int,
    blur: float,
    near: float,
    far: float,
    radius_clip: float,
    radii: Any,
    means2d: Any,
    depths: Any,
    conics: Any,
) -> None:
    """Gaussians on the image planes of their cameras (Zwicker et al. 2001; Kerbl et al. 2023, eq. 5).

    Args:
        first: Of a range over batch x Gaussian.
        past: Of that range.
        means: Shape (batch, gaussian, 3).
        quats: Shape (batch, gaussian, 4), w first.
        scales: Shape (batch, gaussian, 3).
        opacities: Shape (batch, gaussian); they bound the radii.
        views: Shape (batch, camera, 4, 4), world to camera.
        Ks: Shape (batch, camera, 3, 3).
        width: Pixels.
        height: Pixels.
        blur: Added to the variances, pixels squared.
        near: Least depth.
        far: Greatest depth.
        radius_clip: Radii up to this one are not drawn, pixels.
        radii: Shape (batch, camera, gaussian, 2), int32, zeros; stays zero for what cannot be seen or is not finite.
        means2d: Shape (batch, camera, gaussian, 2), zeros.
        depths: Shape (batch, camera, gaussian), zeros.
        conics: Shape (batch, camera, gaussian, 3), zeros.
    """
    num_gaussians = means.shape[1]
    rotation, covariance, rows, point = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3)), np.empty(3)
    for index in range(first, past):
        batch, which = index // num_gaussians, index % num_gaussians
        opacity = float(opacities[batch, which])
        if not 1 / 255 <= opacity < np.inf:
            continue
        extent = min(3.33, np.sqrt(2.0 * np.log(255.0 * opacity)))
        _rotation(quats[batch, which], rotation)
        _covariance(rotation, scales[batch, which], covariance)
        for camera in range(views.shape[1]):
            K = Ks[batch, camera]
            _camera_rows(means[batch, which], views[batch, camera], K, width, height, point, rows)
            if not near <= point[2] <= far:
                continue
            xx, xy, yy = blur, 0.0, blur
            for i in range(3):
                for j in range(3):
                    xx += rows[0, i] * covariance[i, j] * rows[0, j]
                    xy += rows[0, i] * covariance[i, j] * rows[1, j]
                    yy += rows[1, i] * covariance[i, j] * rows[1, j]
            determinant = xx * yy - xy * xy
            if not 0.0 < determinant < np.inf:
                continue
            x = float(K[0, 0]) * point[0] / point[2] + float(K[0, 2])
            y = float(K[1, 1]) * point[1] / point[2] + float(K[1, 2])
            radius_x, radius_y = np.ceil(extent * np.sqrt(xx)), np.ceil(extent * np.sqrt(yy))
            seen = x + radius_x > 0 and x - radius_x < width and y + radius_y > 0 and y - radius_y < height
            drawn = seen and (radius_x > radius_clip or radius_y > radius_clip)
            a, b, c = yy / determinant, -xy / determinant, xx / determinant
            if not drawn or not np.float32(a) * np.float64(np.float32(c)) > np.float64(np.float32(b)) ** 2:
                continue
            radii[batch, camera, which, 0] = np.int32(min(radius_x, 1e9))
            radii[batch, camera, which, 1] = np.int32(min(radius_y, 1e9))
            means2d[batch, camera, which, 0] = x
            means2d[batch, camera, which, 1] = y
            depths[batch, camera, which] = point[2]
            conics[batch, camera, which, 0] = a
            conics[batch, camera, which, 1] = b
            conics[batch, camera, which, 2] = c


@njit(**_HELPER)
def _quat_gradient(quat: Any, inverse_length: float, of_rotation: Any, out: Any) -> None:
    """Gradient by a quaternion of any length from that by its rotation matrix."""
    g = of_rotation
    w, x, y, z = quat[0] * inverse_length, quat[1] * inverse_length, quat[2] * inverse_length, quat[3] * inverse_length
    dw = 2 * (x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]))
    dx = 2 * (y * (g[0, 1] + g[1, 0]) + z * (g[0, 2] + g[2, 0]) + w * (g[2, 1] - g[1, 2]) - 2 * x * (g[1, 1] + g[2, 2]))
    dy = 2 * (x * (g[0, 1] + g[1, 0]) + z * (g[1, 2] + g[2, 1]) + w * (g[0, 2] - g[2, 0]) - 2 * y * (g[0, 0] + g[2, 2]))
    dz = 2 * (x * (g[0, 2] + g[2, 0]) + y * (g[1, 2] + g[2, 1]) + w * (g[1, 0] - g[0, 1]) - 2 * z * (g[0, 0] + g[1, 1]))
    along = w * dw + x * dx + y * dy + z * dz
    out[0] = inverse_length * (dw - along * w)
    out[1] = inverse_length * (dx - along * x)
    out[2] = inverse_length * (dy - along * y)
    out[3] = inverse_length * (dz - along * z)


@njit(
    f"void(int64, int64, {_FLOATS}, {_FLOATS}, {_FLOATS}, float32[:,:,:,::1], float32[:,:,:,::1], int64, int64, "
    "int32[:,:,:,::1], float32[:,:,:,::1], float32[:,:,:,::1], float32[:,:,::1], float32[:,:,:,::1], "
    f"{_FLOATS}, {_FLOATS}, {_FLOATS})",
    **_KERNEL,
)
def project_backward(
    first: int,
    past: int,
    means: Any,
    quats: Any,
    scales: Any,
    views: Any,
    Ks: Any,
    width: int,
    height: int,
    radii: Any,
    conics: Any,
    grad_means2d: Any,
    grad_depths: Any,
    grad_conics: Any,
    grad_means: Any,
    grad_quats: Any,
    grad_scales: Any,
) -> None:
    """Gradients of `project` by means, quaternions and scales, summed over the cameras; zeros for what is not seen."""
    num_gaussians = means.shape[1]
    rotation, covariance, rows, point = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3)), np.empty(3)
    of_covariance, of_rows, of_point, of_2d = np.empty((3, 3)), np.empty((2, 3)), np.empty(3), np.empty((2, 2))
    of_rotation, conic, times = np.empty((3, 3)), np.empty((2, 2)), np.empty((2, 2))
    for index in range(first, past):
        batch, which = index // num_gaussians, index % num_gaussians
        scale, quat = scales[batch, which], quats[batch, which]
        seen = False
        for camera in range(views.shape[1]):
            if radii[batch, camera, which, 0] > 0:
                seen = True
        if not seen:
            continue
        inverse_length = _rotation(quat, rotation)
        _covariance(rotation, scale, covariance)
        of_covariance[:] = 0.0
        for camera in range(views.shape[1]):
            if radii[batch, camera, which, 0] == 0:
                continue
            view, K = views[batch, camera], Ks[batch, camera]
            held_u, held_v = _camera_rows(means[batch, which], view, K, width, height, point, rows)
            fx, fy = float(K[0, 0]), float(K[1, 1])
            # conic = inverse of the 2D covariance: the gradient by the covariance is -conic^T G conic.
            a, b, c = conics[batch, camera, which]
            conic[0, 0], conic[0, 1], conic[1, 0], conic[1, 1] = a, b, b, c
            ga, gb, gc = grad_conics[batch, camera, which]
            of_2d[0, 0], of_2d[0, 1], of_2d[1, 0], of_2d[1, 1] = ga, 0.5 * gb, 0.5 * gb, gc
            for i in range(2):
                for j in range(2):
                    times[i, j] = conic[i, 0] * of_2d[0, j] + conic[i, 1] * of_2d[1, j]
            for i in range(2):
                for j in range(2):
                    of_2d[i, j] = -(times[i, 0] * conic[0, j] + times[i, 1] * conic[1, j])
            # 2D covariance = rows covariance rows^T + blur.
            for i in range(2):
                for j in range(3):
                    of_rows[i, j] = 0.0
                    for k in range(3):
                        along = of_2d[i, 0] * rows[0, k] + of_2d[i, 1] * rows[1, k]
                        of_rows[i, j] += 2.0 * along * covariance[k, j]
            for i in range(3):
                for j in range(3):
                    for k in range(2):
                        of_covariance[i, j] += rows[k, i] * (of_2d[k, 0] * rows[0, j] + of_2d[k, 1] * rows[1, j])
            # rows[0] = fx / z (view[0] - u view[2]), and likewise rows[1]; u = x / z unless it was held.
            z = point[2]
            gx, gy = fx * grad_means2d[batch, camera, which, 0] / z, fy * grad_means2d[batch, camera, which, 1] / z
            of_u, of_v, stretch = 0.0, 0.0, 0.0
            for j in range(3):
                of_u -= fx / z * of_rows[0, j] * float(view[2, j])
                of_v -= fy / z * of_rows[1, j] * float(view[2, j])
                stretch += of_rows[0, j] * rows[0, j] + of_rows[1, j] * rows[1, j]
            of_u, of_v = 0.0 if held_u else of_u, 0.0 if held_v else of_v
            of_point[0], of_point[1] = gx + of_u / z, gy + of_v / z
            of_point[2] = grad_depths[batch, camera, which] - stretch / z
            of_point[2] -= (of_point[0] * point[0] + of_point[1] * point[1]) / z
            for j in range(3):
                for i in range(3):
                    grad_means[batch, which, j] += of_point[i] * float(view[i, j])
        # covariance = R S S R^T: by R it is 2 G R S^2, by a scale 2 s (R^T G R) on the diagonal.
        for k in range(3):
            total = 0.0
            for i in range(3):
                along = 0.0
                for j in range(3):
                    along += of_covariance[i, j] * rotation[j, k]
                of_rotation[i, k] = 2.0 * along * float(scale[k]) * float(scale[k])
                total += rotation[i, k] * along
            grad_scales[batch, which, k] = 2.0 * float(scale[k]) * total
        _quat_gradient(quat, inverse_length, of_rotation, grad_quats[batch, which])
