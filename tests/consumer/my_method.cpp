// A driver of one's own, outside the tree.
#include <ptq/core/error.hpp>

int main() {}
