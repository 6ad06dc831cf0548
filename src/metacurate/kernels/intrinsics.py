"""What processors can and Numba does not know of: bytes by address, masks of 64, wide products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def load64(_typing, address):
    """The 8 bytes at an address, unaligned."""

    def codegen(_context, builder, _signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), codegen


@intrinsic
def load8(_typing, address):
    """The byte at an address."""

    def codegen(_context, builder, _signature, args):
        return builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer()))

    return types.uint8(types.int64), codegen


@intrinsic
def prefetch(_typing, array, index):
    """Ask for the cache line of element ``array[index]`` of a flat uint64 array."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch",
            [ir.IntType(8).as_pointer()],
            ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), i32, i32, i32]),
        )
        builder.call(function, [pointer, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), codegen


@intrinsic
def trailing_zeros(_typing, bits):
    """The position of the lowest set bit."""

    def codegen(_context, builder, _signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


@intrinsic
def multiply(_typing, a, b):
    """The upper and lower 64 bits of a product, from one multiplication."""

    def codegen(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        words = [builder.lshr(product, wide(64)), product]
        words = [builder.trunc(word, ir.IntType(64)) for word in words]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), codegen


def range_mask_codegen(ranges: Sequence[tuple[int, int]]) -> Callable[..., Any]:
    """The code of an intrinsic: which of the 64 bytes at an address lie in one of the ranges.

    Ranges are (first byte, number of byte values). The result is a uint64, a bit a byte.
    """

    def codegen(_context, builder, _signature, args):
        vector = ir.VectorType(ir.IntType(8), 64)
        block = builder.load(builder.inttoptr(args[0], vector.as_pointer()), align=1)
        found = None
        for first, count in ranges:
            if count == 1:
                hit = builder.icmp_unsigned("==", block, ir.Constant(vector, [first] * 64))
            else:
                shifted = builder.sub(block, ir.Constant(vector, [first] * 64))
                hit = builder.icmp_unsigned("<", shifted, ir.Constant(vector, [count] * 64))
            found = hit if found is None else builder.or_(found, hit)
        return builder.bitcast(found, ir.IntType(64))

    return codegen
