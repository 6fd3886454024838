package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	_ "net/http/pprof"
	"os"

	"k8s.io/klog/v2"
	"lanyard.dev/internal/standalone"
)

func main() {
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	go http.ListenAndServe("127.0.0.1:16600", nil)
	a, err := standalone.Start(context.Background(), standalone.Config{DataDir: "/tmp/d1", BindAddress: "127.0.0.1", Port: 16443, Log: os.Stderr})
	fmt.Println(a, err)
	if err == nil {
		a.Wait()
	}
}
