// What every cross-entropy kernel is told, and what it finds out about a row before it looks at the logits.
#pragma once
#include "slabs.cuh"

namespace softgrad {

struct LossArgs {
  Shape shape;
  Strided z, targets;  // targets: per row integers, or per class probabilities
  Strided weight;      // per class, of the computing type; data is null where there is none
  Strided scale_rows;  // per row, of the computing type, what `scale` is multiplied by; data is null where there is none
  Strided loss, grad;  // data is null where not wanted; loss per row: of the computing type of z, double if it is summed
  int64 target_format;  // which of load_target's cases
  int64 ignores, ignore_index;
  const double* divisor;  // {Σ weights, number} of the rows that count; null unless the reduction is the mean
  double scale, smoothing, z_loss, softcap;  // softcap 0: none
  int64 dense, summed;
  int64 tangents, v_step, out_step;  // for directional derivatives and Hessian products
  Strided v, out;
  DEVICE bool follow() const { return z.follows(shape) && (!grad.data || grad.follows(shape)); }
};

// A target of any integer format, by value; unsigned 64-bit ones beyond 2^63 come out negative, and so out of range.
DEVICE int64 load_target(const Strided& array, const At& at, int64 format) {
  switch (format) {
    case 0: return *at.in<signed char>(array);
    case 1: return *at.in<short>(array);
    case 2: return *at.in<int>(array);
    case 3: return *at.in<int64>(array);
    case 4: return *at.in<unsigned char>(array);
    case 5: return *at.in<uint16>(array);
    case 6: return *at.in<uint32>(array);
    default: return *at.in<int64>(array);
  }
}

// Halves, for m − z may overflow though its product with a weight does not.
template <class Real>
DEVICE double half_gap(Real m, Real z) {
  return 0.5 * (double)m - 0.5 * (double)z;
}

// Numbers to be summed are kept divided by this, in double: their mean may be in range where their sum is not.
constexpr double SUMMED_UNIT = 256.0;

// One row's number, given as its half.
template <class T>
DEVICE void put_per_row(const LossArgs& a, const Strided& array, const At& at, double half) {
  using Stored = typename Computing<T>::Real;
  if (a.summed)
    *at.in<double>(array) = half * (2.0 / SUMMED_UNIT);
  else
    *at.in<Stored>(array) = (Stored)(2.0 * half);
}

enum class Fate { COUNTS, DEAD, BAD };  // its own numbers, exactly 0, NaN

// One row's target, then its weight and the factor of its derivatives: read when they are needed, for until then the
// row's exponentials want the registers.
template <class Real>
struct Charge {
  int64 t = 0;
  Fate fate = Fate::COUNTS;
  Real weight = Real(1);
  Sum<Real> scale;      // grad_output / divisor
  Real zeta = Real(0);  // z_loss, times Σ weights / number under the mean, for all is divided by Σ weights

  DEVICE Charge(const LossArgs& a, const At& at) {
    if (a.dense) return;
    t = load_target(a.targets, at, a.target_format);
    if (a.ignores && t == a.ignore_index)
      fate = Fate::DEAD;
    else if (t < 0 || t >= a.shape.classes)
      fate = Fate::BAD;
    if (fate != Fate::COUNTS) t = 0;
  }

  DEVICE void weigh(const LossArgs& a, const At& at) {
    if (fate == Fate::COUNTS && !a.dense && a.weight.data) weight = ((const Real*)a.weight.data)[t * a.weight.classes];
    double g = a.scale_rows.data ? a.scale * (double)*at.in<Real>(a.scale_rows) : a.scale;
    double mean_zeta = a.z_loss;
    if (a.divisor) {
      const double sum = a.divisor[0], count = a.divisor[1];
      if (sum == 0.0 || count == 0.0) fate = Fate::DEAD;
      g /= sum;
      mean_zeta *= sum / count;
    }
    zeta = Real(mean_zeta);
    const Real high = Real(g);
    scale = Sum<Real>(high, is_finite(high) ? Real(g - double(high)) : Real(0));
  }
};

}  // namespace softgrad
