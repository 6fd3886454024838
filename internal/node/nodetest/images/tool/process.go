//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func terminated() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM)
}

func sleep(args []string) error {
	ctx, cancel := terminated()
	defer cancel()
	if len(args) == 0 {
		<-ctx.Done()
		os.Exit(0)
	}
	wait, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		os.Exit(0)
	case <-time.After(wait):
	}
	return nil
}

func stubborn([]string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("stubborn")
	// The Go runtime reports an empty select as a deadlock.
	for {
		time.Sleep(time.Hour)
	}
}

func await(args []string) error {
	path, err := only(args)
	if err != nil {
		return err
	}
	ctx, cancel := terminated()
	defer cancel()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			os.Exit(0)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func exit(args []string) error {
	code, err := number(args)
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

func onHup(args []string) error {
	path, err := only(args)
	if err != nil {
		return err
	}
	hups := make(chan os.Signal, 8)
	signal.Notify(hups, syscall.SIGHUP)
	ctx, cancel := terminated()
	defer cancel()
	fmt.Println("listening")
	for {
		select {
		case <-hups:
			if err := appendLine(path, "hup"); err != nil {
				return err
			}
			fmt.Println("hup")
		case <-ctx.Done():
			return nil
		}
	}
}

func tick(args []string) error {
	text, err := only(args)
	if err != nil {
		return err
	}
	period, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	ctx, cancel := terminated()
	defer cancel()
	for i := 1; ; i++ {
		fmt.Println(i)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(period):
		}
	}
}

func allocate(args []string) error {
	size, err := number(args)
	if err != nil {
		return err
	}
	memory := make([]byte, size)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	fmt.Println("allocated", len(memory))
	return nil
}

func burn([]string) error {
	ctx, cancel := terminated()
	defer cancel()
	for ctx.Err() == nil {
	}
	return nil
}

func only(args []string) (string, error) {
	if len(args) != 1 {
		return "", errors.New("takes one argument")
	}
	return args[0], nil
}

func number(args []string) (int, error) {
	text, err := only(args)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}
