package process_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/process"
)

// commands are the programs that the test binary can act as.
var commands = map[string]func(){"dashboard": dashboard, "stubborn": stubborn, "counter": counter, "attacker": attacker, "renewing": renewing, "resizable": resizable}

// dashboard is an in-cluster client. It executes the orders on its standard input, one a line.
func dashboard() {
	config, err := rest.InClusterConfig()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	client := kubernetes.NewForConfigOrDie(config)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	fmt.Println("ready", os.Getenv("LANYARD_POD_NAME"))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "read":
			data, err := os.ReadFile(filepath.Join(process.WellKnown, rest))
			fmt.Println(oneLine(string(data), err))
		case "write":
			fmt.Println(oneLine("written", os.WriteFile(filepath.Join(process.WellKnown, rest), nil, 0o600)))
		case "get":
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_, err := client.CoreV1().ConfigMaps(os.Getenv("LANYARD_POD_NAMESPACE")).Get(ctx, rest, metav1.GetOptions{})
			cancel()
			fmt.Println(apierrors.ReasonForError(err))
		case "signal":
			fmt.Println(<-signals)
		case "env":
			value, set := os.LookupEnv(rest)
			fmt.Println(set, value)
		case "ids":
			groups, _ := os.Getgroups()
			fmt.Println(os.Getuid(), os.Getgid(), groups)
		case "capabilities":
			fmt.Println(capabilities())
		case "exit":
			code, _ := strconv.Atoi(rest)
			os.Exit(code)
		}
	}
}

func oneLine(text string, err error) string {
	if err != nil {
		text = err.Error()
	}
	return strings.ReplaceAll(text, "\n", "|")
}

func capabilities() (held []string) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.SplitSeq(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if strings.HasPrefix(name, "Cap") && name != "CapBnd" && strings.Trim(value, "0") != "" {
			held = append(held, name+"="+value)
		}
	}
	return held
}

// stubborn prints SIGTERM and continues.
func stubborn() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Println("ready", os.Getenv("LANYARD_POD_NAME"))
	fmt.Println(<-signals)
	select {}
}

// counter counts SIGINT until SIGUSR1, and then reads a line.
func counter() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGUSR1)
	fmt.Println("ready", os.Getenv("LANYARD_POD_NAME"))
	count := 0
	for received := range signals {
		if received == syscall.SIGUSR1 {
			break
		}
		count++
		fmt.Println(received)
	}
	fmt.Printf("interrupted %d times\n", count)
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	fmt.Println("read", lines.Text())
	os.Exit(3)
}
