// Sums whose error does not grow with the number of terms, and quotients of them.
#pragma once
#include "exponential.cuh"

namespace softgrad {

// The number high + low, |low| no more than the rounding error of high.
template <class Real>
struct Sum {
  Real high, low;

  DEVICE Sum() : high(0), low(0) {}
  DEVICE Sum(Real high, Real low) : high(high), low(low) {}

  // Knuth's two-sum: the rounding error of each addition is exact, and kept.
  DEVICE void add(Real x) {
    const Real sum = high + x, of_x = sum - high;
    low += (high - (sum - of_x)) + (x - of_x);
    high = sum;
  }
  // Of a row's V chunks (0: any number) the next, each term 0 or above: to nothing, a lone one need not be added.
  template <int V>
  DEVICE void add_chunk(Real x) {
    if constexpr (V == 1)
      high = x;
    else
      add(x);
  }
  // Symmetric in the two: lanes that add each other's sums get the same bits.
  DEVICE Sum operator+(const Sum& other) const {
    Sum s = *this;
    s.low = 0;
    s.add(other.high);
    s.low += low + other.low;
    return s;
  }
  // An infinite sum has no rounding error, though the steps above leave a NaN for it.
  DEVICE Real value() const { return is_finite(high) ? high + low : high; }
  DEVICE Sum normal() const {
    const Real sum = value();
    return Sum(sum, is_finite(sum) ? (high - sum) + low : Real(0));
  }
};

// A sum as lanes hand it to each other.  For float that is a double, which one addition joins; on the way back it is split.
template <class Real>
struct Handed {
  Sum<double> sum;
  DEVICE Handed() {}
  DEVICE explicit Handed(const Sum<Real>& s) : sum(s) {}
  DEVICE Handed(const Sum<double>& s, int) : sum(s) {}
  DEVICE Handed operator+(const Handed& other) const { return Handed(sum + other.sum, 0); }
  DEVICE Sum<Real> back() const { return sum; }
};
template <>
struct Handed<float> {
  double sum;
  DEVICE Handed() : sum(0.0) {}
  DEVICE explicit Handed(const Sum<float>& s) : sum(is_finite(s.high) ? (double)s.high + (double)s.low : (double)s.high) {}
  DEVICE Handed(double s, int) : sum(s) {}
  DEVICE Handed operator+(const Handed& other) const { return Handed(sum + other.sum, 0); }
  DEVICE Sum<float> back() const {
    const float high = (float)sum;
    return Sum<float>(high, is_finite(high) ? (float)(sum - (double)high) : 0.0f);
  }
};

// Σ of a few neighbours, as a tree.
template <int N, class Real>
DEVICE Real tree_sum(const Real (&x)[N]) {
  Real t[N];
#pragma unroll
  for (int i = 0; i < N; ++i) t[i] = x[i];
#pragma unroll
  for (int half = N > 4 ? 4 : N > 2 ? 2 : 1; half > 0; half /= 2)
#pragma unroll
    for (int i = 0; i < half; ++i)
      if (i + half < N && i + half < 2 * half) t[i] += t[i + half];
  return t[0];
}

// x · small · large, which leaves the range on the way only where the product does: small is below 1, large above.
template <class Real>
DEVICE Real scaled(Real x, Real small, Real large) {
  return magnitude(x) >= Real(1) ? x * small * large : x * large * small;
}

// What an exponential is multiplied by: a · 2^LIFT / s for a sum s of exponentials, applied so that neither the factor
// nor the product with it leaves the range, or loses digits, unless the final product does.
template <class Real>
struct Factor {
  Real first, second;

  // a and s as high + low: the quotient is right to half an ulp.
  DEVICE Factor(Sum<Real> a, Sum<Real> s) {
    using F = Format<Real>;
    const Sum<Real> t = s.normal();
    const Real b = t.high * F::NEAR_DROP;
    const Real unit = reciprocal(b);
    Real ratio = a.high * unit;
    if (is_finite(ratio)) {
      // One Newton step with the exact residual makes it right; where that underflows there is nothing to correct.
      const Real rest = (fused(-ratio, b, a.high) + a.low) - ratio * (t.low * F::NEAR_DROP);
      ratio = fused(rest, unit, ratio);
    }
    const bool large = ratio >= Real(1) || ratio <= Real(-1);
    first = large ? ratio * F::NEAR_DROP : ratio;
    second = large ? Real(1) : F::NEAR_DROP;
  }
  DEVICE explicit Factor(Real a, Sum<Real> s) : Factor(Sum<Real>(a, Real(0)), s) {}

  DEVICE Real operator()(Real e) const { return e * first * second; }
  // Exactly 0 where that is 0, as at a masked class, whatever the factor is.
  DEVICE Real share(Real e) const { return e == Real(0) ? e : (*this)(e); }
  // That times a power of two that may be large.
  DEVICE Real operator()(Real e, Real power) const {
    return second == Real(1) ? scaled(e, first, power) : scaled(e * first, second, power);
  }
  DEVICE bool finite() const { return is_finite(first); }
};

// 2^LIFT / s for the sum s of a row's exponentials, largest first: far inside the range, so that one factor will do.
template <class Real>
DEVICE Real inverse(Sum<Real> s) {
  using F = Format<Real>;
  const Sum<Real> t = s.normal();
  const Real b = t.high * F::NEAR_DROP, unit = reciprocal(b);
  return fused(fused(-unit, b, Real(1)) - unit * (t.low * F::NEAR_DROP), unit, unit) * F::NEAR_DROP;
}

template <class Real>
DEVICE Real inverse(Real s) {
  return reciprocal(s * Format<Real>::NEAR_DROP) * Format<Real>::NEAR_DROP;
}

// a · b exactly, as high + low.
template <class Real>
DEVICE Sum<Real> product(Real a, Real b) {
  const Real high = a * b;
  return Sum<Real>(high, is_finite(high) ? fused(a, b, -high) : Real(0));
}

}  // namespace softgrad
