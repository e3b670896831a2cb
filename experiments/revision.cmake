# Writes OUTPUT, a source file with the revision of SOURCE, when it changes.
execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty
  OUTPUT_VARIABLE revision ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT revision)
  set(revision unknown)
endif()
set(text "namespace ptq::driver {\nextern const char* const revision;\nconst char* const revision = \"${revision}\";\n}  // namespace ptq::driver\n")
set(old "")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" old)
endif()
if(NOT old STREQUAL text)
  file(WRITE "${OUTPUT}" "${text}")
endif()
