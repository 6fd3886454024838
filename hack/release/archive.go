package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"lanyard.dev/internal/ociimage"
)

// imageUser is the UID and GID in containers. An authority does not need root.
const imageUser = "65532:65532"

//go:embed systemd
var systemd embed.FS

// file is an entry of an archive. The name of a directory ends with a slash.
type file struct {
	name    string
	mode    fs.FileMode
	content []byte
}

// archiveFiles returns the entries of the archive for a platform, in one directory.
func (r release) archiveFiles(p program, bill []byte) []file {
	dir := r.name(p.platform) + "/"
	executable := "lanyard"
	if p.os == "windows" {
		executable += ".exe"
	}
	files := []file{
		{dir, 0o755, nil},
		{dir + "LICENSE", 0o644, r.license},
		{dir + executable, 0o755, p.binary},
		{dir + "sbom.cdx.json", 0o644, bill},
	}
	if p.os == "linux" {
		files = append(files, units(dir+"systemd/")...)
	}
	return files
}

// units returns the systemd units in the directory dir.
func units(dir string) []file {
	files := []file{{dir, 0o755, nil}}
	entries, _ := systemd.ReadDir("systemd") // Reading embedded files does not fail.
	for _, entry := range entries {
		content, _ := systemd.ReadFile(path.Join("systemd", entry.Name()))
		files = append(files, file{dir + entry.Name(), 0o644, content})
	}
	return files
}

func tarball(files []file, made time.Time) ([]byte, error) {
	var out bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(compressed)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: int64(f.mode), Size: int64(len(f.content)), ModTime: made, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
		if strings.HasSuffix(f.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	err = compressed.Close()
	return out.Bytes(), err
}

func zipped(files []file, made time.Time) ([]byte, error) {
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: made}
		if strings.HasSuffix(f.name, "/") {
			header.Method = zip.Store
			header.SetMode(f.mode | fs.ModeDir)
		} else {
			header.SetMode(f.mode)
		}
		entry, err := archive.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(entry, bytes.NewReader(f.content)); err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return out.Bytes(), err
}

// image returns a container image with the program and the license.
func (r release) image(p program) ([]byte, error) {
	return ociimage.Image{
		Name: "lanyard.dev/lanyard:" + strings.ReplaceAll(r.number(), "+", "-"), Main: "lanyard.dev/cmd/lanyard",
		Binary: p.binary, Architecture: p.arch, User: imageUser,
		Labels: map[string]string{
			"org.opencontainers.image.version": r.version, "org.opencontainers.image.revision": r.commit,
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
		Files: map[string]string{"/usr/share/doc/lanyard/LICENSE": string(r.license)},
	}.Archive()
}
