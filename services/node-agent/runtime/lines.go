package runtime

import (
	"strings"
	"unicode/utf8"
)

// LastLines returns at most the last n lines of text, of together at most maxBytes;
// a line that alone is longer keeps its end. The result is valid UTF-8 without control
// characters other than tabs, which no row or page could show.
func LastLines(text string, n, maxBytes int) []string {
	text = strings.Map(printable, strings.ToValidUTF8(strings.TrimRight(text, "\n"), "\uFFFD"))
	if text == "" || n <= 0 {
		return nil
	}
	lines := strings.Split(text, "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	left := maxBytes
	first := len(lines)
	for first > 0 {
		line := strings.TrimSuffix(lines[first-1], "\r")
		if len(line) > left {
			if first == len(lines) {
				lines[first-1] = validEnd(line, left)
				first--
			}
			break
		}
		lines[first-1] = line
		left -= len(line)
		first--
	}
	return lines[first:]
}

func validEnd(line string, most int) string {
	line = line[len(line)-most:]
	for len(line) > 0 && !utf8.RuneStart(line[0]) {
		line = line[1:]
	}
	return line
}

func printable(r rune) rune {
	if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7F {
		return '\uFFFD'
	}
	return r
}
