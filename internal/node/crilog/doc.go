// Package crilog reads the log that a container runtime writes for a container, and follows it while it is written and
// rotated.
//
// Every file is opened below an os.Root, once: what is read is what was checked, whatever links others put into the directory
// of logs meanwhile. The format is the one that CRI prescribes. The package does not know the runtime, nor where logs are.
package crilog
