// Dashboard is the program of docs/walk.md: a client of the Kubernetes API that contains nothing specific to Lanyard. It uses
// client-go's in-cluster configuration for the server, its CA and the token, and prints its user name and what it can see.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func main() {
	every := flag.Duration("every", 30*time.Second, "time between requests; 0 makes the requests once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *every); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, every time.Duration) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespace, err := os.ReadFile(namespaceFile)
	if err != nil {
		return err
	}
	for {
		look(ctx, client, string(namespace))
		if every == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// look prints the answers of the API. Errors are normal for a dashboard with few permissions, so it prints them too.
func look(ctx context.Context, client kubernetes.Interface, namespace string) {
	me, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		fmt.Println("who am I:", err)
		return
	}
	fmt.Println("I am", me.Status.UserInfo.Username)
	if pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{}); err != nil {
		fmt.Println("pods:", err)
	} else {
		fmt.Printf("pods: %d in namespace %s\n", len(pods.Items), namespace)
	}
	if secrets, err := client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{}); err != nil {
		fmt.Println("secrets:", err)
	} else {
		fmt.Printf("secrets: %d in namespace %s\n", len(secrets.Items), namespace)
	}
}
