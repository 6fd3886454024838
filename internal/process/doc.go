// Package process implements lanyard exec: it runs a command with the identity of a service account, as a pod's container has it.
// It creates a Pod that represents the command, requests tokens bound to that Pod, gives the command the files of a service
// account where in-cluster clients look for them, renews the tokens and the Pod's lease, and deletes the Pod when the command
// ends, so that the tokens are refused from then on.
//
// # The volume
//
// The files are on a tmpfs in a mount namespace that contains only the command and its descendants. No path outside leads to
// them. The supervisor writes through a descriptor of the tmpfs's directory, while the command sees the same directory through
// a read-only bind mount. The kernel frees the tmpfs with the last process that holds it, however the processes end. New mounts
// of the machine appear in the namespace; mounts of the namespace do not appear outside.
//
// With CAP_SYS_ADMIN, one thread of the supervisor enters a new mount namespace, mounts there, and starts the command itself.
// Without it the mount namespace needs a user namespace, which a process with several threads cannot enter. The program then
// runs itself in both (see Trampoline), mounts there, hands the descriptor to the supervisor, drops its capabilities, and
// executes the command.
//
// # The mount point
//
// Most machines lack the directory to mount at, and only root can create it. A supervisor of root creates it and marks the
// directories that it created; the last supervisor that uses them removes the marked ones. A private copy of /run would not
// leave a directory behind either, but the machine would not see the PID files and sockets that a service creates in /run.
//
// A supervisor that cannot create the directory uses such a copy: it mounts a read-only tmpfs over the deepest directory that
// it can list, usually /run, with a bind mount for every directory in it and a symbolic link for every other entry. Its user
// could not have created entries in /run itself, and sees all changes except new entries there.
//
// # How a command ends
//
// The command's parent-death signal is SIGKILL, so that it does not outlive a supervisor that was killed. Its Pod does, until the
// lease expires; then the authority deletes it.
//
// The package does not parse command lines or read the caller's kubeconfig. Package runas separates a command of another user from
// its caller.
package process
