// Compiles: what the precompiled header brings is there, so a neighbour fails by its own mistake and not by a missing include.
#include <ptq/core/error.hpp>

int main() { return at::ones({1}).dim() == 1 ? 0 : 1; }
