package main

import (
	"os"
	"os/exec"
	"syscall"
)

// namespaces reports whether the user of the test may create the namespaces that lanyard exec needs.
func namespaces() bool {
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		probe.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		probe.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		probe.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
	return probe.Run() == nil
}
