// Numbers as they are stored (float16, bfloat16, float, double) and as they are computed with (float, double).
#pragma once
#include "machine.cuh"

namespace softgrad {

DEVICE float widen(bfloat16 x) { return bits_float((uint32)x.bits << 16); }
DEVICE float widen(float x) { return x; }
DEVICE double widen(double x) { return x; }

template <class T>
DEVICE T narrow(typename Computing<T>::Real x);
template <>
DEVICE double narrow<double>(double x) {
  return x;
}
template <>
DEVICE float narrow<float>(float x) {
  return x;
}
template <>
DEVICE float16 narrow<float16>(float x) {
  return to_float16(x);
}
template <>
DEVICE bfloat16 narrow<bfloat16>(float x) {
  return to_bfloat16(x);
}

DEVICE bool is_nan(float x) { return x != x; }
DEVICE bool is_nan(double x) { return x != x; }
DEVICE bool is_finite(float x) { return x - x == 0.0f; }
DEVICE bool is_finite(double x) { return x - x == 0.0; }

template <class Real>
DEVICE Real infinity();
template <>
DEVICE float infinity<float>() {
  return bits_float(0x7f800000u);
}
template <>
DEVICE double infinity<double>() {
  return bits_float((uint64)0x7ff0000000000000ull);
}
template <class Real>
DEVICE Real nan() {
  return infinity<Real>() - infinity<Real>();
}

}  // namespace softgrad
