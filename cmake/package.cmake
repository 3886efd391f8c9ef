# What "cmake --install" installs, and the Debian package that "cpack" makes of it (./dev package).

include(GNUInstallDirs)

# cpack packs what is built; ./dev package builds before.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)

# Whatever the umask of who builds it.
set(CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
                                                WORLD_READ WORLD_EXECUTE)

install(TARGETS convoy convoy-pdata_tools)
install(TARGETS convoy-daemon convoy-suspend-guard DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/convoy)
install(PROGRAMS packaging/dm_dev_partition.sh DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES packaging/convoy.service DESTINATION /lib/systemd/system)
install(FILES packaging/convoy.default DESTINATION /etc/default RENAME convoy)
install(FILES packaging/convoy.spec DESTINATION /etc/docker/plugins)
file(GLOB man_pages CONFIGURE_DEPENDS packaging/man/*.8)
install(FILES ${man_pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
install(FILES packaging/completions/convoy.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME convoy)
install(FILES packaging/completions/_convoy DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES packaging/completions/convoy.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES README.md ARCHITECTURE.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN *.md)

set(CPACK_GENERATOR DEB)
set(CPACK_SET_DESTDIR ON)  # for what goes to /etc and /lib
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR})
set(CPACK_PACKAGE_CONTACT "The convoy maintainers <root@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "persistent volumes for Docker on a thin pool")
set(CPACK_PACKAGE_DESCRIPTION "A Docker volume plugin and its command line: volumes with snapshots in a device-mapper thin pool,
incremental backups of them to a directory, an NFS mount or S3, and restore on any host.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# The first mke2fs that knows assume_storage_prezeroed.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "e2fsprogs (>= 1.47.0)")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "ca-certificates, fdisk, xfsprogs")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "docker.io | docker-ce, thin-provisioning-tools")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
foreach(file conffiles postinst prerm postrm)
  list(APPEND CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/packaging/debian/${file})
endforeach()
include(CPack)
