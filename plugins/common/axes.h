// Sizes by axis letter, as in a generated header ("B,S,R_K,D"): the first operand that has an axis fixes its size, the
// others must agree. No allocation unless something is refused.
#pragma once

#include <limits>
#include <string>
#include <string_view>

#include "ort_operator.h"

namespace edgekit::ort {

inline int rank_of(std::string_view axes) { return 1 + static_cast<int>(std::count(axes.begin(), axes.end(), ',')); }

class Axes {
 public:
  // Takes in the shape of operand `name`, whose rank is that of `axes`. Both strings must outlive this object.
  void bind(const char* name, std::string_view axes, const Shape& shape) {
    for (std::int64_t size : shape) {
      const std::size_t comma = axes.find(',');
      const std::string_view axis = axes.substr(0, comma);
      axes = comma == std::string_view::npos ? std::string_view() : axes.substr(comma + 1);
      if (size > std::numeric_limits<std::int32_t>::max())
        throw Refusal("axis " + std::string(axis) + " of " + name + " must be below 2^31",
                      "its shape is " + to_string(shape));
      const std::size_t slash = axis.find('/');
      if (slash == std::string_view::npos)
        bind_whole(name, axis, static_cast<int>(size));
      else
        check_part(name, axis, slash, size);
    }
  }

  // Takes in a size that attribute `name` states.
  void state(std::string_view axis, int size, const char* name) { bind_whole(name, axis, size); }

  int operator[](std::string_view axis) const { return known(axis).size; }

 private:
  struct Known {
    std::string_view axis;
    int size;
    const char* from;
  };
  static constexpr int kMost = 24;

  const Known* find(std::string_view axis) const {
    const Known* end = known_ + count_;
    const Known* found = std::find_if(known_, end, [&](const Known& known) { return known.axis == axis; });
    return found == end ? nullptr : found;
  }

  const Known& known(std::string_view axis) const {
    const Known* found = find(axis);
    if (!found) throw Refusal("every axis must be given by an operand", "no operand has " + std::string(axis));
    return *found;
  }

  void bind_whole(const char* name, std::string_view axis, int size) {
    const Known* found = find(axis);
    if (found && found->size != size)
      throw Refusal("axis " + std::string(axis) + " of " + name + " must be that of " + found->from,
                    "it is " + std::to_string(size) + ", there it is " + std::to_string(found->size));
    if (found) return;
    if (count_ == kMost) throw Refusal("an operator must have at most 24 axes", "there are more");
    known_[count_++] = {axis, size, name};
  }

  // "D/2": twice the size is D.
  void check_part(const char* name, std::string_view axis, std::size_t slash, std::int64_t size) const {
    const Known& whole = known(axis.substr(0, slash));
    if (whole.size == size * std::stoi(std::string(axis.substr(slash + 1)))) return;
    throw Refusal(std::string(name) + " must have " + std::string(axis) + " entries, and " + std::string(whole.axis) +
                      " must divide",
                  std::string(name) + " has " + std::to_string(size) + ", " + std::string(whole.axis) + " of " +
                      whole.from + " is " + std::to_string(whole.size));
  }

  Known known_[kMost];
  int count_ = 0;
};

}  // namespace edgekit::ort
