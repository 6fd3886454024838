// Package crilog reads the log that a container runtime writes for a container, in the format of CRI. It can follow the log
// while the runtime writes and rotates it.
//
// Each file is opened once, below an os.Root, so that the file that is read is the file that was checked, whatever links
// another process puts into the directory. The package knows neither the runtime nor the directory of the logs.
package crilog
