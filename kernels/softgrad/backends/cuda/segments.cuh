// A row cut into segments, each of them a team's, anywhere on the device: a team of teams, which meets between launches.
//
// Launch n of a kernel makes walk n over the row alone; its other walks are empty.  What walk n finds is left in records,
// one per row and segment, which every block of a later launch joins in the same order.  A row is written in its last
// launch only; a number that is read from it by its place is kept in a record too, for in that launch another block may
// have written there.
#pragma once
#include "teams.cuh"

namespace softgrad {

struct SegmentsArgs {
  void* records;       // [number][row of this launch][segment], SLOT bytes each
  int64 first;         // the team that the first block's would be, were rows not cut
  int64 rows;          // of the records
  int64 segments;      // of each row
  int64 length;        // classes in each but the last
  int64 launch, last;  // the number of the walk to make, from 1; whether results are written
};

// A kernel's arguments where its rows are cut.
template <class Args>
struct InSegments {
  Args kernel;
  SegmentsArgs segments;
};

template <class Inner>
struct Segments {
  static constexpr int SIZE = Inner::SIZE, THREADS = Inner::THREADS, BLOCKS = 1;
  template <class T>
  static constexpr int WIDTH = Inner::template WIDTH<T>;
  static constexpr int TURNS = 1;
  static constexpr Slabs SLABS = Slabs::NEVER;
  SegmentsArgs a;
  Inner inner;
  int64 team, segment;  // of those in this launch; of its row
  int64 walk = 0, number = 0;

  DEVICE explicit Segments(const SegmentsArgs& a) : a(a), team(blockIdx.x / a.segments), segment(blockIdx.x % a.segments) {}
  DEVICE int64 classes(bool present, int64 count) const { return present ? count : 0; }
  DEVICE int64 row() const { return inner.row(a.first + team); }
  DEVICE int lane() const { return inner.lane(); }
  DEVICE int64 begin() const { return segment * a.length; }
  DEVICE int64 end(int64 classes) const { return begin() + a.length < classes ? begin() + a.length : classes; }
  DEVICE bool walks() { return ++walk == a.launch; }
  DEVICE bool speaks() const { return a.last && segment == 0 && lane() == 0; }

  // What the row's walk found.  Where that was an earlier launch's, x is what a walk begins with: nothing, to `join`.
  template <class X, class Join>
  DEVICE X all(X x, Join join) {
    if (walk < a.launch)
      for (int64 i = lane(); i < a.segments; i += SIZE) x = join(x, *record<X>(i));
    x = inner.all(x, join);
    if (walk == a.launch && lane() == 0) *record<X>(segment) = x;
    ++number;
    return x;
  }

  // A number that is read from the row between walks, as it was before the next of them.
  template <class Read>
  DEVICE auto kept(Read read) {
    using X = decltype(read());
    X* const at = record<X>(0);
    ++number;
    if (walk + 1 < a.launch) return *at;
    const X x = read();
    if (walk + 1 == a.launch && segment == 0 && lane() == 0) *at = x;
    return x;
  }
  DEVICE void leave() {}

 private:
  template <class X>
  DEVICE X* record(int64 of_segment) const {
    return (X*)((char*)a.records + ((number * a.rows + inner.row(team)) * a.segments + of_segment) * SLOT);
  }
};

}  // namespace softgrad
