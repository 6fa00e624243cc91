"""Sixteen float32 numbers side by side as a Numba type, for compiled loops that LLVM does not vectorise by itself.

Inside @njit code `+ - * /`, comparisons, `&` and the functions below act lane by lane; a float32 beside lanes counts
as sixteen equal ones. LLVM turns each operation into whatever vector instructions the processor has. A multiplication
and an addition may be fused, nothing is reordered, so a result depends on the machine but never on the threads.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 16
FUSED = ("contract",)
INT = ir.IntType(32)
FLOATS, INTS, BITS = (ir.VectorType(kind, WIDTH) for kind in (ir.FloatType(), INT, ir.IntType(1)))


class Lanes(types.Type):
    """Sixteen float32."""


class Mask(types.Type):
    """Sixteen booleans."""


lanes, mask = Lanes("lanes"), Mask("mask")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, FLOATS)


@register_model(Mask)
class MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, BITS)


def lane_constant(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [value] * WIDTH)


def widened(builder, value, kind):
    """Lanes as they are, a scalar sixteen times."""
    if kind is lanes:
        return value
    undefined = ir.Constant(FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTS, [0] * WIDTH))


def define_operator(symbol, result, emit) -> None:
    """Make `symbol` work on lanes and float32 in every mixture; `emit(builder, left, right)` writes the instruction."""

    @infer_global(symbol)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            if lanes in args and set(args) <= {lanes, types.float32}:
                return signature(result, *args)

    def lower(context, builder, sig, args):
        return emit(builder, *(widened(builder, *pair) for pair in zip(args, sig.args)))

    for pair in ((lanes, lanes), (lanes, types.float32), (types.float32, lanes)):
        lower_builtin(symbol, *pair)(lower)


define_operator(operator.add, lanes, lambda builder, a, b: builder.fadd(a, b, flags=FUSED))
define_operator(operator.sub, lanes, lambda builder, a, b: builder.fsub(a, b, flags=FUSED))
define_operator(operator.mul, lanes, lambda builder, a, b: builder.fmul(a, b, flags=FUSED))
define_operator(operator.truediv, lanes, lambda builder, a, b: builder.fdiv(a, b))
for comparison, word in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    define_operator(comparison, mask, lambda builder, a, b, word=word: builder.fcmp_ordered(word, a, b))


@infer_global(operator.and_)
class MaskAnd(AbstractTemplate):
    def generic(self, args, kws):
        if args == (mask, mask):
            return signature(mask, mask, mask)


@lower_builtin(operator.and_, mask, mask)
def lower_and(context, builder, sig, args):
    return builder.and_(*args)


@intrinsic
def blend(typingctx, condition, yes, no):
    """`yes` in the lanes where `condition` holds, `no` elsewhere."""

    def emit(context, builder, sig, args):
        return builder.select(args[0], *(widened(builder, *pair) for pair in zip(args[1:], sig.args[1:])))

    return signature(lanes, condition, yes, no), emit


@intrinsic
def any_lane(typingctx, condition):
    """Whether the condition holds in some lane."""

    def emit(context, builder, sig, args):
        bits = ir.IntType(WIDTH)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return signature(types.boolean, condition), emit


@intrinsic
def broadcast(typingctx, value):
    """Sixteen copies of a float32."""

    def emit(context, builder, sig, args):
        return widened(builder, args[0], types.float32)

    return signature(lanes, types.float32), emit


@intrinsic
def centres(typingctx):
    """0.5, 1.5, ... 15.5: the pixel centres of a row."""

    def emit(context, builder, sig, args):
        return ir.Constant(FLOATS, [i + 0.5 for i in range(WIDTH)])

    return signature(lanes), emit


def lane_address(context, builder, kind, array, index):
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """Sixteen consecutive numbers of a contiguous 1-D float32 array, from `index` on; bounds are the caller's duty."""

    def emit(context, builder, sig, args):
        loaded = builder.load(lane_address(context, builder, sig.args[0], *args))
        loaded.align = 4
        return loaded

    return signature(lanes, array, types.intp), emit


@intrinsic
def store(typingctx, array, index, value):
    """The reverse of `load`."""

    def emit(context, builder, sig, args):
        builder.store(args[2], lane_address(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return signature(types.void, array, types.intp, lanes), emit


@intrinsic
def total(typingctx, value):
    """Sum over the lanes, always in the same (pairwise) order."""

    def emit(context, builder, sig, args):
        summed, undefined = args[0], ir.Constant(FLOATS, ir.Undefined)
        for step in (8, 4, 2, 1):
            turned = ir.Constant(INTS, [(i + step) % WIDTH for i in range(WIDTH)])
            summed = builder.fadd(summed, builder.shuffle_vector(summed, undefined, turned))
        return builder.extract_element(summed, ir.Constant(INT, 0))

    return signature(types.float32, lanes), emit


LARGEST_EXPONENT = 80.0
LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.693359375, -2.12194440e-4  # LN2_HIGH + LN2_LOW = ln 2
EXPONENTIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


@intrinsic
def exp_minus(typingctx, value):
    """exp(-x) for x in [0, 80], relative error 1e-7; a number outside counts as the nearer end, NaN as 80.

    exp(-x) = 2^k exp(r), r = -x - k ln 2, |r| <= ln(2) / 2; exp(r) by a polynomial (Moshier 1992, Cephes, expf).
    """

    def emit(context, builder, sig, args):
        def fused(a, b, c):
            return builder.fadd(builder.fmul(a, b, flags=FUSED), c, flags=FUSED)

        x, largest = args[0], lane_constant(LARGEST_EXPONENT)
        x = builder.select(builder.fcmp_ordered("<", x, largest), x, largest)
        x = builder.fneg(builder.select(builder.fcmp_ordered(">", x, lane_constant(0.0)), x, lane_constant(0.0)))
        floor = cgutils.get_or_insert_function(builder.module, ir.FunctionType(FLOATS, [FLOATS]), "llvm.floor.v16f32")
        k = builder.call(floor, [fused(x, lane_constant(LOG2E), lane_constant(0.5))])
        r = fused(k, lane_constant(-LN2_LOW), fused(k, lane_constant(-LN2_HIGH), x))
        series = lane_constant(EXPONENTIAL[0])
        for coefficient in EXPONENTIAL[1:]:
            series = fused(series, r, lane_constant(coefficient))
        series = builder.fadd(fused(builder.fmul(r, r), series, r), lane_constant(1.0))
        biased = builder.add(builder.fptosi(k, INTS), ir.Constant(INTS, [127] * WIDTH))
        return builder.fmul(series, builder.bitcast(builder.shl(biased, ir.Constant(INTS, [23] * WIDTH)), FLOATS))

    return signature(lanes, lanes), emit
