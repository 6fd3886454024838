// Command lanyard is the Kubernetes service-account system as one program.
package main

import (
	"os"

	"lanyard.dev/internal/cli"
)

func main() { os.Exit(cli.Main()) }
