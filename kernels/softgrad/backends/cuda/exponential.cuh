// The exponentials that everything is made of: e_j = 2^LIFT · exp(z_j − c), to about 0.8 ulp, for a shift c of our choice.
//
// With c = N ln 2, N an integer, no rounding error of a subtraction ever reaches the exponential:
//
//   n = round(z log2 e)           f = z − n ln 2, |f| ≤ ln 2 / 2, by two fused steps      e = 2^(n − N + LIFT) · exp(f)
//
// the shift lives in the exponent bits alone.  N is round(m log2 e), m the row's maximum, so e ≤ 2^(LIFT + ½).
//
//   * LIFT keeps the digits of sums, and of products with large factors, of terms whose probability lies below the
//     smallest normal number; flushing subnormal numbers (-ftz, which CuPy always asks for) then costs nothing.  It
//     cancels in every ratio.  C e ≤ 2^(LIFT + 36) stays far inside the range.
//   * Terms under 2^FLOOR are exactly 0, as a masked class (z = −inf) must be.
//   * n ln 2 needs |z| well under 2^23: beyond LARGE, a base b = m is subtracted first, which is exact there for every z
//     near enough to matter (and 0 elsewhere: nothing is rounded either).
//
// Per element, in float: 1 subtraction, 2 for n, 2 for f, 6 for the polynomial, 2 integer for the scale, 2 for the floor.
#pragma once
#include "formats.cuh"

namespace softgrad {

template <class Real>
struct Format;

template <>
struct Format<float> {
  using Bits = uint32;
  using Signed = int;
  static constexpr int MANTISSA = 23;
  static constexpr int LIFT = 88;
  static constexpr int FLOOR = -212;  // FLOOR + LIFT − 1 ≥ the smallest normal exponent, −126
  static constexpr float LARGE = 131072.0f;
  static constexpr float ROUNDER = 12582912.0f;  // 1.5 · 2^23: x + ROUNDER is round(x), in the low bits
  static constexpr float LOG2_E = 1.44269504088896341f;
  static constexpr float LN2_HIGH = 0.693147180559945309f;
  static constexpr float LN2_LOW = -1.904654299957768e-09f;
  static constexpr float LIFTED_ONE = 0x1p88f;  // e = 2^LIFT · exp(0)
  static constexpr float NEAR_DROP = 0x1p-86f;  // 2^−LIFT, but for two bits that keep quotients in range
  static constexpr Bits LARGEST_UNIT = 0x7e800000u;   // 2^126: its inverse is normal too
  static constexpr Bits SMALLEST_UNIT = 0x0d800000u;  // 2^−100

  // exp(f) to 2^−28 (minimax), |f| < 0.36.
  static DEVICE float exp_small(float f) {
    float q = 0x1.6a2318p-10f;
    q = fmaf(q, f, 0x1.123a8ep-7f);
    q = fmaf(q, f, 0x1.5558f6p-5f);
    q = fmaf(q, f, 0x1.55549p-3f);
    q = fmaf(q, f, 0x1.fffffcp-2f);
    q = fmaf(q, f, 1.0f);
    return fmaf(q, f, 1.0f);
  }
};

template <>
struct Format<double> {
  using Bits = uint64;
  using Signed = int64;
  static constexpr int MANTISSA = 52;
  static constexpr int LIFT = 800;
  static constexpr int FLOOR = -1800;
  static constexpr double LARGE = 1073741824.0;
  static constexpr double ROUNDER = 6755399441055744.0;
  static constexpr double LOG2_E = 1.4426950408889634074;
  static constexpr double LN2_HIGH = 0.69314718055994530942;
  static constexpr double LN2_LOW = 2.3190468138462995584e-17;
  static constexpr double LIFTED_ONE = 0x1p800;
  static constexpr double NEAR_DROP = 0x1p-798;
  static constexpr Bits LARGEST_UNIT = 0x7fd0000000000000ull;   // 2^1022
  static constexpr Bits SMALLEST_UNIT = 0x07b0000000000000ull;  // 2^−900

  // exp(f) to 2^−57 (minimax), |f| < 0.36.
  static DEVICE double exp_small(double f) {
    double q = 0x1.ad7ee6e8da402p-26;
    q = fma(q, f, 0x1.28ade5ebb196bp-22);
    q = fma(q, f, 0x1.71df26642df7cp-19);
    q = fma(q, f, 0x1.a019999589e33p-16);
    q = fma(q, f, 0x1.a01a01298a748p-13);
    q = fma(q, f, 0x1.6c16c1845375cp-10);
    q = fma(q, f, 0x1.1111111127f2fp-7);
    q = fma(q, f, 0x1.55555555507cdp-5);
    q = fma(q, f, 0x1.55555555554f9p-3);
    q = fma(q, f, 0x1.000000000000ap-1);
    q = fma(q, f, 1.0);
    return fma(q, f, 1.0);
  }
};

DEVICE float log1p_of(float x) { return log1pf(x); }
DEVICE double log1p_of(double x) { return log1p(x); }
DEVICE float log_of(float x) { return logf(x); }
DEVICE double log_of(double x) { return log(x); }
DEVICE float magnitude(float x) { return fabsf(x); }
DEVICE double magnitude(double x) { return fabs(x); }
DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }

// c of one row, from its maximum m (finite: the caller sees to rows that are not).
template <class Real>
struct Shift {
  using F = Format<Real>;
  using Bits = typename F::Bits;
  using Signed = typename F::Signed;
  Real base;
  Bits to_exponent;  // (bits of n + ROUNDER) + this = n − N + LIFT, modulo the bits that are shifted out
  Signed floor;      // bits of n + ROUNDER below which the term is 0

  explicit DEVICE Shift(Real m) {
    base = magnitude(m) > F::LARGE ? m : Real(0);
    const Bits top = float_bits(fused(m - base, F::LOG2_E, F::ROUNDER));
    to_exponent = Bits(F::LIFT) - top;
    floor = Signed(top) + F::FLOOR;
  }

  DEVICE Real exp(Real z) const {
    z -= base;
    const Real rounded = fused(z, F::LOG2_E, F::ROUNDER);
    const Bits n_bits = float_bits(rounded);
    const Real n = rounded - F::ROUNDER;
    Real f = fused(n, -F::LN2_HIGH, z);
    f = fused(n, -F::LN2_LOW, f);
    const Bits e = float_bits(F::exp_small(f)) + ((n_bits + to_exponent) << F::MANTISSA);
    // As integers: −inf and everything far below compare less.
    return Signed(n_bits) < floor ? Real(0) : bits_float(e);
  }
};

// 2^LIFT · p of a given probability, of which -ftz would leave nothing where it is subnormal.
template <class Real>
DEVICE Real lifted(Real p) {
  return product_of_subnormal(p, Format<Real>::LIFTED_ONE);
}

// A power of two near `largest`, the largest |tangent| of a row: tangents are carried divided by it, so that products with
// lifted exponentials stay in range, and means of small ones keep their digits.
template <class Real>
DEVICE Real unit_for(Real largest) {
  using F = Format<Real>;
  using Bits = typename F::Bits;
  const Bits exponent = float_bits(largest) & ~((Bits(1) << F::MANTISSA) - 1);
  return bits_float(exponent < F::SMALLEST_UNIT  ? F::SMALLEST_UNIT
                    : exponent > F::LARGEST_UNIT ? F::LARGEST_UNIT
                                                 : exponent);
}

}  // namespace softgrad
