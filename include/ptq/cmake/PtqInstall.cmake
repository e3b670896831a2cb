# Installs headers, kernels, the driver library, and a package: find_package(ptq) gives ptq::ptq, ptq::kernels, ptq::driver.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package "${CMAKE_INSTALL_LIBDIR}/cmake/ptq")

set(targets ptq ptq_torchless ptq_kernels)
if(TARGET ptq_driver)
  list(APPEND targets ptq_driver)
  install(FILES "${PTQ_SOURCE_DIR}/experiments/driver.hpp" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/ptq/experiments")
endif()
install(TARGETS ${targets} EXPORT ptqTargets FILE_SET HEADERS)
install(DIRECTORY "${PTQ_SOURCE_DIR}/kernels/include/" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT ptqTargets NAMESPACE ptq:: DESTINATION "${package}")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/ptqConfig.cmake.in" "${PROJECT_BINARY_DIR}/ptqConfig.cmake" INSTALL_DESTINATION "${package}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/ptqConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/ptqConfig.cmake" "${PROJECT_BINARY_DIR}/ptqConfigVersion.cmake"
  "${CMAKE_CURRENT_LIST_DIR}/PtqTorch.cmake" "${CMAKE_CURRENT_LIST_DIR}/PtqDependencies.cmake" DESTINATION "${package}")
