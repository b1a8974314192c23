// As much of the Arduino core for ESP32, esp32-camera and esp-mqtt as the example sketch calls, so
// that it runs on this machine: names and types as theirs, a real MQTT 3.1.1 connection, a camera
// of files, flash that is a file. docs/connecting.md says what that proves and what it does not.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define IRAM_ATTR
#define INPUT_PULLUP 5
#define FALLING 2
#define pdTRUE 1
#define pdMS_TO_TICKS(ms) (ms)
typedef int esp_err_t;
#define ESP_OK 0

int64_t esp_timer_get_time();
void delay(uint32_t ms);
void pinMode(int pin, int mode);
int digitalPinToInterrupt(int pin);
void attachInterrupt(int pin, void (*call)(), int mode);

typedef struct Queue *QueueHandle_t;
QueueHandle_t xQueueCreate(int length, int item_bytes);
int xQueueSendFromISR(QueueHandle_t queue, const void *item, int *woken);
int xQueueReceive(QueueHandle_t queue, void *item, int ticks);

struct SerialPort {
  void begin(int baud);
  void printf(const char *format, ...) __attribute__((format(printf, 2, 3)));
};
extern SerialPort Serial;

struct Chip {
  uint64_t getEfuseMac();
  void restart();
};
extern Chip ESP;

#define WIFI_STA 1
struct Radio {
  void mode(int mode);
  void setSleep(bool on);
  void setAutoReconnect(bool on);
  void begin(const char *name, const char *password);
};
extern Radio WiFi;

struct Preferences {
  bool begin(const char *name, bool read_only);
  uint32_t getUInt(const char *key, uint32_t otherwise);
  size_t putUInt(const char *key, uint32_t value);
  void end();
};

enum { LEDC_TIMER_0, LEDC_CHANNEL_0, PIXFORMAT_JPEG, FRAMESIZE_VGA };
enum { CAMERA_FB_IN_PSRAM, CAMERA_GRAB_LATEST };
struct camera_config_t {
  int pin_pwdn, pin_reset, pin_xclk, pin_sccb_sda, pin_sccb_scl;
  int pin_d7, pin_d6, pin_d5, pin_d4, pin_d3, pin_d2, pin_d1, pin_d0;
  int pin_vsync, pin_href, pin_pclk, xclk_freq_hz;
  int ledc_timer, ledc_channel, pixel_format, frame_size, jpeg_quality;
  size_t fb_count;
  int fb_location, grab_mode;
};
struct camera_fb_t {
  uint8_t *buf;
  size_t len;
  struct timeval timestamp;
};
esp_err_t esp_camera_init(const camera_config_t *config);
camera_fb_t *esp_camera_fb_get();
void esp_camera_fb_return(camera_fb_t *picture);

typedef const char *esp_event_base_t;
typedef struct Client *esp_mqtt_client_handle_t;
enum { MQTT_EVENT_ANY = -1, MQTT_EVENT_CONNECTED = 1, MQTT_EVENT_DISCONNECTED = 2 };
struct esp_mqtt_client_config_t {
  struct {
    struct {
      const char *uri;
    } address;
  } broker;
  struct {
    const char *username, *client_id;
    struct {
      const char *password;
    } authentication;
  } credentials;
  struct {
    int keepalive;
  } session;
  struct {
    int reconnect_timeout_ms, timeout_ms;
  } network;
  struct {
    int size;
  } buffer;
};
esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *config);
esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t client, int event,
                                         void (*call)(void *, esp_event_base_t, int32_t, void *),
                                         void *argument);
esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t client);
int esp_mqtt_client_publish(esp_mqtt_client_handle_t client, const char *topic, const char *data,
                            int length, int qos, int retain);
