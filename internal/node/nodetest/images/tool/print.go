//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func logLines(args []string) error  { return lines(os.Stdout, args) }
func logErrors(args []string) error { return lines(os.Stderr, args) }
func printArgs(args []string) error { return lines(os.Stdout, args) }

func lines(w io.Writer, all []string) error {
	for _, line := range all {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func logMany(args []string) error {
	n, err := number(args)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for i := range n {
		fmt.Fprintln(out, i+1)
	}
	return out.Flush()
}

func echoStdin([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

func printEnv(names []string) error {
	if len(names) == 0 {
		return lines(os.Stdout, os.Environ())
	}
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			fmt.Printf("%s=%s\n", name, value)
		}
	}
	return nil
}

func printID([]string) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	all := make([]string, 0, len(groups))
	for _, group := range groups {
		all = append(all, strconv.Itoa(group))
	}
	fmt.Printf("uid=%d gid=%d groups=%s\n", os.Getuid(), os.Getgid(), strings.Join(all, ","))
	return nil
}

func printPID([]string) error {
	fmt.Println(os.Getpid())
	return nil
}

func hostname([]string) error {
	name, err := os.Hostname()
	fmt.Println(name)
	return err
}

func workingDir([]string) error {
	dir, err := os.Getwd()
	fmt.Println(dir)
	return err
}

func printTTY([]string) error {
	info, err := os.Stdin.Stat()
	if err != nil {
		return err
	}
	target, _ := os.Readlink("/proc/self/fd/0")
	fmt.Println(info.Mode()&os.ModeCharDevice != 0 && target != "/dev/null")
	return nil
}

func interfaces([]string) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, one := range all {
		addresses, err := one.Addrs()
		if err != nil {
			return err
		}
		for _, address := range addresses {
			fmt.Println(one.Name, address)
		}
	}
	return nil
}

func processes([]string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		// The process may have ended meanwhile.
		if command, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil {
			fmt.Println(filepath.Base(dir), strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return nil
}
