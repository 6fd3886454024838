// Package pod stores pods and says what a pod is: its defaults, which pods are refused, which changes of them, and how
// kubectl prints them.
//
// Defaults, validation and printing are pure functions of the pods given. They know neither other objects nor who asks:
// whether the account or the node exists, and what of them is mounted into the pod, is admission's to say.
package pod
