//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

func cat(paths []string) error {
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(content); err != nil {
			return err
		}
	}
	return nil
}

func list(args []string) error {
	dir, err := only(args)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if err := describe(entry.Name(), path, info); err != nil {
			return err
		}
	}
	return nil
}

func statFiles(paths []string) error {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := describe(path, path, info); err != nil {
			return err
		}
	}
	return nil
}

// describe prints NAME MODE UID GID, and the target of a link.
func describe(name, path string, info os.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the file has no owner")
	}
	fmt.Printf("%s %v %d %d", name, info.Mode(), owner.Uid, owner.Gid)
	if info.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		fmt.Printf(" -> %s", target)
	}
	fmt.Println()
	return nil
}

func write(args []string) error {
	if len(args) != 2 {
		return errors.New("takes a file and a text")
	}
	return os.WriteFile(args[0], []byte(args[1]), 0o644)
}

func mkdir(args []string) error {
	dir, err := only(args)
	if err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

func appendLine(path, line string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, line)
	return errors.Join(err, file.Close())
}

func watchFile(args []string) error {
	path, err := only(args)
	if err != nil {
		return err
	}
	ctx, cancel := terminated()
	defer cancel()
	var last []byte
	for {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if last == nil || !bytes.Equal(content, last) {
			fmt.Println(string(content))
			last = content
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func serve(args []string) error {
	port, err := only(args)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	ctx, cancel := terminated()
	defer cancel()
	go func() {
		<-ctx.Done()
		_ = listener.Close()
	}()
	fmt.Println("serving")
	for {
		connection, err := listener.Accept()
		if err != nil {
			return nil
		}
		go func() {
			_, _ = io.Copy(connection, connection)
			_ = connection.Close()
		}()
	}
}

func dial(args []string) error {
	address, err := only(args)
	if err != nil {
		return err
	}
	connection, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}
