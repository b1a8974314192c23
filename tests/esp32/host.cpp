// The sketch as a process: host PORT FLASH_FILE STALE_JPEG. Each line on standard input is the name of
// a JPEG and pulls the trigger; the driver then has one old picture left, and this one after it.
#include "host.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "esp32_camera.ino"

static int port;
static const char *flash_file, *stale_file;
static char fresh_file[4096];
static void (*interrupt)();
static bool stale_left;

static void must(bool held, const char *what) {
  if (held) return;
  fprintf(stderr, "host: %s\n", what);
  exit(3);
}

int64_t esp_timer_get_time() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}
void delay(uint32_t) {}
void pinMode(int, int) {}
int digitalPinToInterrupt(int pin) { return pin; }
void attachInterrupt(int, void (*call)(), int) { interrupt = call; }

struct Queue {
  int64_t item;
  bool full;
};
QueueHandle_t xQueueCreate(int, int item_bytes) {
  must(item_bytes == sizeof(int64_t), "a queue of instants");
  return (QueueHandle_t)calloc(1, sizeof(Queue));
}
int xQueueSendFromISR(QueueHandle_t queue, const void *item, int *) {
  memcpy(&queue->item, item, sizeof queue->item);
  return queue->full = true;
}
int xQueueReceive(QueueHandle_t queue, void *item, int) {
  if (!queue->full) return 0;
  memcpy(item, &queue->item, sizeof queue->item);
  queue->full = false;
  return pdTRUE;
}

SerialPort Serial;
void SerialPort::begin(int) {}
void SerialPort::printf(const char *format, ...) {
  va_list words;
  va_start(words, format);
  vfprintf(stderr, format, words);
  va_end(words);
}
Chip ESP;
uint64_t Chip::getEfuseMac() { return 0x240ac4c0ffee; }
void Chip::restart() { exit(4); }
Radio WiFi;
void Radio::mode(int) {}
void Radio::setSleep(bool on) { must(!on, "power saving is off"); }
void Radio::setAutoReconnect(bool) {}
void Radio::begin(const char *, const char *) {}

bool Preferences::begin(const char *, bool) { return true; }
uint32_t Preferences::getUInt(const char *, uint32_t otherwise) {
  uint32_t value = otherwise;
  if (FILE *file = fopen(flash_file, "rb")) {
    if (fread(&value, sizeof value, 1, file) != 1) value = otherwise;
    fclose(file);
  }
  return value;
}
size_t Preferences::putUInt(const char *, uint32_t value) {
  FILE *file = fopen(flash_file, "wb");
  if (file == NULL) return 0;
  size_t written = fwrite(&value, sizeof value, 1, file);
  fclose(file);
  return written * sizeof value;
}
void Preferences::end() {}

esp_err_t esp_camera_init(const camera_config_t *) { return ESP_OK; }
camera_fb_t *esp_camera_fb_get() {
  FILE *file = fopen(stale_left ? stale_file : fresh_file, "rb");
  must(file != NULL, "the picture is there");
  camera_fb_t *picture = (camera_fb_t *)calloc(1, sizeof(camera_fb_t));
  picture->buf = (uint8_t *)malloc(1 << 20);
  picture->len = fread(picture->buf, 1, 1 << 20, file);
  fclose(file);
  int64_t begun_us = stale_left ? 0 : esp_timer_get_time();
  stale_left = false;
  picture->timestamp.tv_sec = begun_us / 1000000;
  picture->timestamp.tv_usec = begun_us % 1000000;
  return picture;
}
void esp_camera_fb_return(camera_fb_t *picture) {
  free(picture->buf);
  free(picture);
}

// MQTT 3.1.1, as much as a camera says.
struct Client {
  int socket;
  esp_mqtt_client_config_t config;
  void (*call)(void *, esp_event_base_t, int32_t, void *);
};
static uint8_t *text(uint8_t *at, const char *words) {
  size_t length = strlen(words);
  *at++ = length >> 8;
  *at++ = length & 255;
  memcpy(at, words, length);
  return at + length;
}
static void send_packet(int to, uint8_t kind, const uint8_t *head, size_t head_bytes,
                        const void *body, size_t body_bytes) {
  uint8_t start[5] = {kind};
  size_t left = head_bytes + body_bytes, used = 1;
  do {
    start[used] = left & 127;
    left >>= 7;
    if (left) start[used] |= 128;
    used++;
  } while (left);
  bool sent = write(to, start, used) == (ssize_t)used &&
              write(to, head, head_bytes) == (ssize_t)head_bytes &&
              write(to, body, body_bytes) == (ssize_t)body_bytes;
  must(sent, "the broker takes it");
}
esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *config) {
  Client *client = (Client *)calloc(1, sizeof(Client));
  client->config = *config;
  return client;
}
esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t client, int,
                                         void (*call)(void *, esp_event_base_t, int32_t, void *),
                                         void *) {
  client->call = call;
  return ESP_OK;
}
esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t client) {
  struct sockaddr_in broker = {};
  broker.sin_family = AF_INET;
  broker.sin_port = htons(port);
  broker.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  client->socket = socket(AF_INET, SOCK_STREAM, 0);
  must(connect(client->socket, (struct sockaddr *)&broker, sizeof broker) == 0, "a broker");
  // Level 4 is 3.1.1; user, password, clean session; 60 s.
  uint8_t head[512] = {0, 4, 'M', 'Q', 'T', 'T', 4, 0xc2, 0, 60}, *at = head + 10;
  at = text(at, client->config.credentials.client_id);
  at = text(at, client->config.credentials.username);
  at = text(at, client->config.credentials.authentication.password);
  send_packet(client->socket, 0x10, head, at - head, NULL, 0);
  uint8_t answer[4];
  must(read(client->socket, answer, 4) == 4 && answer[3] == 0, "the broker accepts");
  client->call(NULL, NULL, MQTT_EVENT_CONNECTED, NULL);
  return ESP_OK;
}
int esp_mqtt_client_publish(esp_mqtt_client_handle_t client, const char *topic, const char *data,
                            int length, int qos, int retain) {
  must(qos == 0 && retain == 0, "a frame that cannot come late");
  uint8_t head[512], *at = text(head, topic);
  send_packet(client->socket, 0x30, head, at - head, data, length);
  return 0;
}

int main(int count, char **words) {
  must(count == 4, "PORT FLASH_FILE STALE_JPEG");
  port = atoi(words[1]);
  flash_file = words[2];
  stale_file = words[3];
  setup();
  while (fgets(fresh_file, sizeof fresh_file, stdin)) {
    fresh_file[strcspn(fresh_file, "\n")] = 0;
    stale_left = true;
    interrupt();
    loop();
  }
  return 0;
}
