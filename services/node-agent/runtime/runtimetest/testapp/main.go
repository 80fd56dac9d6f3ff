// Command testapp is the image of the runtime tests: a small HTTP server that does
// what the environment variable MODE says.
//
//	serve   (default) answer until SIGTERM, then end with 0
//	stubborn  answer, and ignore SIGTERM
//	exit    print LINES lines, TEXT FILL times, ERROR to standard error, then LAST, and end with CODE
//	oom     use more and more memory
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	switch os.Getenv("MODE") {
	case "exit":
		lines, _ := strconv.Atoi(os.Getenv("LINES"))
		for i := range lines {
			fmt.Printf("line %d\n", i+1)
		}
		fill, _ := strconv.Atoi(os.Getenv("FILL"))
		fmt.Print(strings.Repeat(os.Getenv("TEXT"), fill))
		fmt.Fprint(os.Stderr, os.Getenv("ERROR"))
		fmt.Print(os.Getenv("LAST"))
		code, _ := strconv.Atoi(os.Getenv("CODE"))
		os.Exit(code)
	case "oom":
		eat()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	mux.HandleFunc("/status", show("/proc/self/status"))
	mux.HandleFunc("/limits", show("/proc/self/limits"))
	mux.HandleFunc("/resolv", show("/etc/resolv.conf"))
	mux.HandleFunc("/hosts", show("/etc/hosts"))
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
	})
	mux.HandleFunc("/dial", dial)
	mux.HandleFunc("/syscall", systemCall)
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-stop
		if os.Getenv("MODE") == "stubborn" {
			return
		}
		_ = server.Shutdown(context.Background())
		os.Exit(0)
	}()
	fmt.Println("listening on", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Println(err)
		os.Exit(1)
	}
	select {} // the signal's goroutine ends the process
}

func show(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		text, err := os.ReadFile(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(text)
	}
}

// systemCall makes the system call of that number on a thread of its own and says
// whether the kernel answered or ended the thread.
func systemCall(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.ParseUint(r.URL.Query().Get("number"), 10, 32)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answered := make(chan syscall.Errno, 1)
	go func() {
		runtime.LockOSThread()
		_, _, errno := syscall.Syscall(uintptr(number), 0, 0, 0)
		answered <- errno
	}()
	select {
	case errno := <-answered:
		fmt.Fprintf(w, "answered %d", errno)
	case <-time.After(time.Second):
		fmt.Fprint(w, "ended")
	}
}

// dial says whether the address in the query can be connected to.
func dial(w http.ResponseWriter, r *http.Request) {
	conn, err := net.DialTimeout("tcp", r.URL.Query().Get("address"), time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_ = conn.Close()
	fmt.Fprintln(w, "connected")
}

func eat() {
	var all [][]byte
	for {
		piece := make([]byte, 4<<20)
		for i := range piece {
			piece[i] = 1
		}
		all = append(all, piece)
		time.Sleep(time.Millisecond)
		_ = all
	}
}
