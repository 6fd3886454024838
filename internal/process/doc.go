// Package process runs a command with what a pod's container has: an identity. It makes a Pod that stands for the command,
// requests tokens bound to it, gives the command the files of a service account where in-cluster clients look for them,
// keeps tokens and Pod alive, and removes the Pod before it returns, so that the tokens are refused from then on.
//
// # The volume
//
// The files are on a tmpfs in a mount namespace that only the command and its descendants are in. Nothing of it has a path
// on the machine: the supervisor writes through a directory descriptor, which a read-only bind mount over the tmpfs does
// not hinder, and the kernel frees the tmpfs with the last process that holds it, however the processes ended. Mounts of
// the machine go on appearing in the namespace, and none of the namespace's appear outside.
//
// With CAP_SYS_ADMIN, one thread of the supervisor enters a new mount namespace, mounts there, and starts the command; no
// other program is in between. Without, a new process is needed, since a process with several threads cannot enter a
// user namespace: the program runs itself in one (see Trampoline), mounts there, hands the descriptor to the supervisor,
// and becomes the command without a capability left.
//
// # The mount point
//
// It is mostly missing on machines, and only root can make it. Root makes it, marks the directories it made, and the last
// supervisor to use them removes those that are marked. A private copy of /run would leave no directory either, but PID
// files and sockets that a service makes in /run would then be invisible to the machine.
//
// Who cannot make it gets such a copy: a read-only tmpfs over the deepest directory that they can list, mostly /run, with every
// directory in it bound back and every other entry linked back. They could not have made anything in /run itself, and
// see all changes but new entries there.
//
// # Ends
//
// The command's parent-death signal is SIGKILL, so it does not outlive a supervisor that was killed. The Pod does, until
// its lease ends; the authority removes it then.
//
// The package knows no command line and reads no kubeconfig.
package process
