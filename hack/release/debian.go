package main

import (
	"bytes"
	"fmt"
	"strings"
)

// control is the control file of the package. The package has no scripts, since its installation configures, starts and enables
// nothing.
const control = `Package: lanyard
Version: %s
Architecture: %s
Maintainer: The Lanyard authors
Installed-Size: %d
Suggests: containerd, containernetworking-plugins
Section: net
Priority: optional
Description: Kubernetes service accounts as one program
 Lanyard gives every workload a named identity, a short-lived token, and
 exactly the permissions it was granted. It speaks the Kubernetes API.
`

// debianPackage returns a package for dpkg: an ar archive with a version number, the control file and the files.
func (r release) debianPackage(p program) ([]byte, error) {
	files := []file{
		{"./", 0o755, nil}, {"./usr/", 0o755, nil}, {"./usr/bin/", 0o755, nil},
		{"./usr/bin/lanyard", 0o755, p.binary},
		{"./usr/lib/", 0o755, nil}, {"./usr/lib/systemd/", 0o755, nil},
	}
	files = append(files, units("./usr/lib/systemd/system/")...)
	files = append(files, file{"./usr/share/", 0o755, nil}, file{"./usr/share/doc/", 0o755, nil}, file{"./usr/share/doc/lanyard/", 0o755, nil},
		file{"./usr/share/doc/lanyard/copyright", 0o644, r.license})
	size := 0
	for _, f := range files {
		size += (len(f.content) + 1023) / 1024
	}
	text := fmt.Sprintf(control, debianVersion(r.number()), p.arch, size)
	info, err := tarball([]file{{"./", 0o755, nil}, {"./control", 0o644, []byte(text)}}, r.time)
	if err != nil {
		return nil, err
	}
	data, err := tarball(files, r.time)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, member := range []file{{"debian-binary", 0o644, []byte("2.0\n")}, {"control.tar.gz", 0o644, info}, {"data.tar.gz", 0o644, data}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", member.name, r.time.Unix(), 0, 0, 0o100000|member.mode, len(member.content))
		out.Write(member.content)
		if len(member.content)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), nil
}

// debianVersion converts a semantic version to one that dpkg sorts in the same order. A pre-release follows a hyphen in a
// semantic version, and a tilde in Debian's. Further hyphens are replaced, since they would separate a revision.
func debianVersion(number string) string {
	return strings.ReplaceAll(strings.Replace(number, "-", "~", 1), "-", ".")
}
